"""What is damaged and who reads it: one record a kind of file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .model_readers import ask_teachers, ask_timm, ask_transformers, merge_yaml, resume_tuned, serve_tuned
from .readers import (
    load_adapter,
    load_graph_folder,
    look_at_result,
    merge,
    open_pictures,
    open_shards,
    open_suite_file,
    open_table,
    predict,
    predict_pictures,
    predict_served,
    read_cache,
    read_cards,
    read_plans,
    resume,
    resume_to_the_end,
    training_goes_on,
    validate_and_resume,
)

__all__ = ["SUBJECTS", "Subject", "copy_of"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind of file."""

    name: str
    folder: str
    """What of the base is copied before each reading."""
    files: tuple[str, ...]
    """Patterns of the files that are damaged, below that folder."""
    language: str
    """A key of :data:`.LANGUAGES`; ``place``, ``places that lead out`` and ``links`` put something else in the place of a
    file."""
    read: Callable[[Path], None]
    """Reads the folder with the damaged file in it."""


SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("safetensors", "models", ("a.safetensors", "base.safetensors"), "bytes", merge),
        Subject("shards", "models", ("shards/*.safetensors", "shards/*.json"), "bytes", open_shards),
        Subject("index", "models", ("shards/*.json",), "json", open_shards),
        Subject("adapter-config", "models", ("adapter/*.json",), "json", load_adapter),
        Subject("adapter-weights", "models", ("adapter/*.safetensors",), "bytes", load_adapter),
        Subject("adapter-places", "models", ("adapter", "adapter/*"), "place", load_adapter),
        Subject("config", "run", ("model/config.json",), "json", predict),
        Subject("lineage", "run", ("model/lineage.json",), "json", resume_to_the_end),
        Subject("run-finished", "run", ("run.json",), "json", resume),
        Subject("run", "run", ("run.json",), "json", validate_and_resume),
        Subject("result", "run", ("result.json",), "json", look_at_result),
        Subject("clock", "run", ("clock.json",), "json", resume_to_the_end),
        Subject("job-results", "run", ("jobs/*/result.json",), "json", resume_to_the_end),
        Subject("job-predictions", "run", ("jobs/*/predictions.safetensors",), "bytes", resume_to_the_end),
        Subject("log", "run", ("log.jsonl",), "jsonl", resume_to_the_end),
        Subject("model-onnx", "run", ("model.onnx",), "onnx", predict),
        Subject("model-folder", "run", ("model/config.json",), "json", load_graph_folder),
        Subject("model-weights", "run", ("model/model.safetensors",), "bytes", load_graph_folder),
        Subject("checkpoints", "training", ("jobs/*/checkpoint.json", "jobs/*/checkpoint-*/checkpoint.json"), "json", training_goes_on),
        Subject("checkpoint-tensors", "training", ("jobs/*/checkpoint-*/*.safetensors",), "bytes", training_goes_on),
        Subject("checkpoint-places", "training", ("jobs/*/*", "jobs/*/checkpoint-*/*"), "place", training_goes_on),
        Subject("served-onnx", "served", ("*/model.onnx",), "onnx", predict_served),
        Subject("served-config", "served", ("*/model/config.json",), "json", predict_served),
        Subject("controls", "served", ("controllable/controls.json",), "json", predict_served),
        Subject("configurations", "served", ("controllable/configurations", "controllable/configurations/*"), "place", predict_served),
        Subject("stored-suite", "run", ("suite/suite.json",), "json", resume_to_the_end),
        Subject("stored-arrays", "run", ("suite/*.npy",), "bytes", resume_to_the_end),
        Subject("suite-yaml", "settings", ("suite.yaml",), "yaml", open_suite_file),
        Subject("plans", "settings", ("plans.toml",), "toml", read_plans),
        Subject("cards", "settings", ("rep-mtl.toml", "ties.toml"), "toml", read_cards),
        Subject("csv", "tables", ("table.csv",), "csv", open_table("table.csv")),
        Subject("tsv", "tables", ("table.tsv",), "bytes", open_table("table.tsv")),
        Subject("jsonl", "tables", ("table.jsonl",), "jsonl", open_table("table.jsonl")),
        Subject("json", "tables", ("table.json",), "json", open_table("table.json")),
        Subject("parquet", "tables", ("table.parquet",), "bytes", open_table("table.parquet")),
        Subject("parquet-values", "tables", ("table.parquet",), "parquet", open_table("table.parquet")),
        Subject("pictures", "pictures", ("pictures/*",), "picture", open_pictures),
        Subject("picture-labels", "pictures", ("labels.csv",), "labels", open_pictures),
        Subject("picture-links", "pictures", ("pictures/*",), "links", open_pictures),
        Subject("pictures-predicted", "pictures", ("pictures/*",), "picture", predict_pictures),
        Subject("links-predicted", "pictures", ("pictures/*",), "links", predict_pictures),
        Subject("cache-manifest", "cache", ("entry/manifest.json",), "json", read_cache),
        Subject("cache-arrays", "cache", ("entry/*.npy",), "bytes", read_cache),
        Subject("cache-places", "cache", ("entry", "entry/*", ".entry.lock"), "place", read_cache),
        Subject("run-places", "run", ("*", "model/*", "jobs/*", "jobs/*/*", "suite/*"), "places that lead out", resume_to_the_end),
        Subject("model-places", "run", ("model", "model.onnx", "model/*", "result.json", "run.json"), "place", predict),
        Subject("tuned-config", "tuned", ("*/delta/config.json", "*/delta/*/*.json"), "json", serve_tuned),
        Subject("tuned-weights", "tuned", ("*/delta/*.safetensors", "*/delta/*/*.safetensors"), "bytes", serve_tuned),
        Subject("tuned-places", "tuned", ("*/delta", "*/delta/*", "*/delta/*/*"), "place", serve_tuned),
        Subject("tuned-run", "tuned", ("one/run.json", "one/result.json"), "json", resume_tuned),
        Subject("transformers-config", "transformers", ("bert/config.json",), "json", ask_transformers),
        Subject("transformers-tokenizer", "transformers", ("bert/tokenizer.json",), "json", ask_transformers),
        Subject("transformers-weights", "transformers", ("bert/*.safetensors",), "bytes", ask_transformers),
        Subject("transformers-places", "transformers", ("bert", "bert/*"), "place", ask_transformers),
        Subject("timm-config", "timm", ("resnet/config.json",), "json", ask_timm),
        Subject("timm-weights", "timm", ("resnet/*.safetensors",), "bytes", ask_timm),
        Subject("timm-places", "timm", ("resnet", "resnet/*"), "place", ask_timm),
        Subject("mergekit-yaml", "mergekit", ("*.yml",), "yaml", merge_yaml),
        Subject("mergekit-models", "mergekit", ("*/config.json", "*/*.safetensors"), "bytes", merge_yaml),
        Subject("teacher-table", "teachers", ("said.csv",), "csv", ask_teachers),
        Subject("teacher-lines", "teachers", ("said.jsonl",), "jsonl", ask_teachers),
        Subject("teacher-arrays", "teachers", ("said.npy", "said.npz", "said.safetensors", "said.parquet"), "bytes", ask_teachers),
    )
}  # fmt: skip
"""All kinds by name."""


def copy_of(base: Path, folder: Path) -> None:
    """Copy a folder with hard links, but for what graftwork appends to or locks in place."""

    def copy(source: str, target: str) -> None:
        if os.path.basename(source) in ("log.jsonl", ".lock", "rows.csv") or os.path.basename(source).endswith(".lock"):
            shutil.copy2(source, target)
        else:
            os.link(source, target)

    shutil.copytree(base, folder, copy_function=copy)
