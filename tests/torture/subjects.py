"""What is damaged and who reads it: one record a kind of file, made of whole files that graftwork itself wrote."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from graftwork.cli.main import main
from graftwork.core.errors import GraftworkError

__all__ = ["SUBJECTS", "Subject", "WouldTrainError", "build"]

TARGETS = "price,late"


class WouldTrainError(GraftworkError):
    """The run would go on with a training: the files were good enough for that."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One kind of file."""

    name: str
    folder: str
    """What of the base is copied before each reading."""
    files: tuple[str, ...]
    """Patterns of the files that are damaged, below that folder."""
    language: str
    read: Callable[[Path], None]
    """Reads the folder with the damaged file in it."""


def build(folder: Path, plans: Sequence[str] = ("separate", "shared-trunk")) -> None:
    """Write a whole file of every kind, equal at every call but for dates.

    Args:
        folder: Empty; gets a folder for each value of :attr:`Subject.folder`.
        plans: Those of the run; without any there is no run.
    """
    rng = np.random.default_rng(5)
    values = rng.normal(size=(96, 3)).round(3)
    frame = pd.DataFrame(values, columns=list("abc"))
    frame["place"] = np.array(["north", "south", "west"])[rng.integers(0, 3, 96)]
    frame["day"] = pd.date_range("2024-01-01", periods=96).strftime("%Y-%m-%d")
    frame["price"] = (10 + 3 * values[:, 0] + rng.normal(size=96)).round(3)
    frame["late"] = np.where(values[:, 1] > 0, "yes", "no")
    _write_tables(folder / "tables", frame)
    _write_settings(folder / "settings", frame)
    _write_models(folder / "models", rng)
    _write_cache(folder / "cache")
    if plans:
        _write_run(folder / "run", folder / "tables" / "table.csv", plans)


def _write_tables(folder: Path, frame: pd.DataFrame) -> None:
    folder.mkdir()
    frame.to_csv(folder / "table.csv", index=False)
    frame.to_csv(folder / "table.tsv", index=False, sep="\t")
    frame.to_parquet(folder / "table.parquet")
    nested = frame.assign(more=[{"x": float(index), "tags": ["u", "v"][: index % 3]} for index in range(len(frame))])
    nested.to_json(folder / "table.jsonl", orient="records", lines=True)
    nested.head(30).to_json(folder / "table.json", orient="records")


_SUITE = """name: shop
modality: table
missing: ['?', '-999']
seed: 3
datasets:
  - name: first
    source: table.csv
    targets:
      price: regression
      late:
        kind: binary
        metric: accuracy
    features: [a, b, place]
    categories: [place]
    domain: north
    credit: nobody
  - name: second
    source: table.csv
    targets: [price]
    group: place
    ignore: [day]
"""
_PLANS = """[[plans]]
name = "mine"
title = "My plan"
role = "joint"
modalities = ["table"]
default = ["table"]
sharing = {path = "graftwork.methods.sharing.shared_trunk:SharedTrunk", settings = {}}

[plans.training]
learning_rate = 0.003
batch_size = 32

[[plans.variants]]
training = {learning_rate = 0.01}
"""


def _write_settings(folder: Path, frame: pd.DataFrame) -> None:
    folder.mkdir()
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "suite.yaml").write_text(_SUITE, encoding="utf-8")
    (folder / "plans.toml").write_text(_PLANS, encoding="utf-8")
    from graftwork.core.cards import PACKAGE_FOLDER

    for slug in ("rep-mtl", "ties"):
        shutil.copy(PACKAGE_FOLDER / "cards" / f"{slug}.toml", folder / f"{slug}.toml")


def _write_models(folder: Path, rng: np.random.Generator) -> None:
    from graftwork.methods.tuning.lora import LoRA  # noqa: F401  (imports torch now, not while something is watched)

    folder.mkdir()
    for name in ("base", "a", "b"):
        tensors: dict[str, Any] = {
            "fc.weight": rng.normal(size=(8, 6)).astype(np.float32),
            "fc.bias": rng.normal(size=8).astype(np.float16),
        }
        tensors |= {"bn.num_batches_tracked": np.array(3), "mask": np.array([True, False])}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt", "note": name})
    shards = folder / "shards"
    shards.mkdir()
    where = {"fc.weight": "model-1.safetensors", "fc.bias": "model-2.safetensors"}
    for key, file in where.items():
        save_file({key: rng.normal(size=(4, 3)).astype(np.float32)}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 96}, "weight_map": where}))
    adapter = folder / "adapter"
    adapter.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
    }
    config |= {"use_rslora": False, "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "target_modules": ["fc"]}
    (adapter / "adapter_config.json").write_text(
        json.dumps(config | {"rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None})
    )
    pair = {"A": rng.normal(size=(2, 6)).astype(np.float32), "B": rng.normal(size=(8, 2)).astype(np.float32)}
    save_file(
        {f"base_model.model.fc.lora_{part}.weight": value for part, value in pair.items()}, adapter / "adapter_model.safetensors"
    )


_CACHED = {"features": np.arange(24.0, dtype=np.float32).reshape(6, 4), "rows": np.arange(6)}


def _write_cache(folder: Path) -> None:
    from graftwork.data.array_cache import cached_arrays

    cached_arrays(folder, "entry", lambda: _CACHED)


def _write_run(folder: Path, table: Path, plans: Sequence[str]) -> None:
    from graftwork.workflows.fit import fit

    fields: dict[str, Any] = {
        "steps": 4,
        "seeds": 1,
        "folds": 0,
        "workers": 0,
        "backbone": "none",
        "single": True,
        "keep": "chosen",
    }
    fit(table, targets=TARGETS, plans=list(plans), out=folder, progress=False, **fields)


def _run_main(*words: str | Path) -> None:
    """Run the command line; its exit code may be anything but that of a bug, which ``--debug`` raises."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main([str(word) for word in (*words, "--debug")])
    assert len(printed.getvalue()) < 60_000, f"printed {len(printed.getvalue()):,} characters: {printed.getvalue()[:300]}"


@contextlib.contextmanager
def _no_training() -> Any:
    """Let unfinished jobs raise :class:`WouldTrainError`."""
    from graftwork.workflows.runs import pool
    from graftwork.workflows.runs.execution import execute
    from graftwork.workflows.runs.run_folder import RunFolder

    def only_finished(job: Any, folder: Any, control: Any) -> Any:
        if RunFolder(folder).result(job.id) is None:
            raise WouldTrainError(job.id)
        return execute(job, folder, control)

    # The report takes most of the time and says nothing about the files.
    with mock.patch.object(pool, "execute", only_finished), mock.patch("graftwork.reporting.report.write_report"):
        yield


def _resume(folder: Path) -> None:
    with _no_training():
        _run_main("fit", "--resume", folder, "--workers", "0", "--quiet")


def _resume_to_the_end(folder: Path) -> None:
    """Resume where only ``result.json`` is missing: all jobs are read again."""
    with contextlib.suppress(IsADirectoryError):
        (folder / "result.json").unlink(missing_ok=True)
    _resume(folder)


def _validate_and_resume(folder: Path) -> None:
    with contextlib.suppress(GraftworkError):
        _run_main("validate", folder)
    _resume_to_the_end(folder)


def _look_at_result(folder: Path) -> None:
    from graftwork.workflows.load_run import load_run

    run = load_run(folder)
    for look in (run.summary, run.leaderboard, lambda: run.sentences, lambda: repr(run)):
        look()
    _resume(folder)
    _predict(folder)


def _predict(folder: Path) -> None:
    table = folder / "rows.csv"
    table.write_text("a,b,c,place,day\n0.5,1,-1,north,2024-02-01\n,,,,\n", encoding="utf-8")
    _run_main("predict", folder, table, "--out", folder / "predicted.csv")


def _open_table(name: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        from graftwork.data.reading.ingest import open_suite

        open_suite(folder / name, targets=TARGETS)

    return read


def _open_suite_file(folder: Path) -> None:
    from graftwork.data.reading.ingest import open_suite

    with contextlib.suppress(GraftworkError):
        _run_main("validate", folder / "suite.yaml")
    open_suite(folder / "suite.yaml")


def _read_plans(folder: Path) -> None:
    from graftwork.workflows.portfolio import portfolio

    with contextlib.suppress(GraftworkError):
        _run_main("validate", folder / "plans.toml")
    portfolio(("table",), 2, [str(folder / "plans.toml")])


def _read_cards(folder: Path) -> None:
    from graftwork.core.cards import read_card

    for slug in ("rep-mtl", "ties"):
        with contextlib.suppress(GraftworkError):
            _run_main("validate", folder / f"{slug}.toml")
        read_card(folder / f"{slug}.toml")


def _merge(folder: Path) -> None:
    _run_main(
        "merge",
        "--base",
        folder / "base.safetensors",
        "--models",
        folder / "a.safetensors",
        folder / "b.safetensors",
        "--out",
        folder / "out.safetensors",
        "--quiet",
    )


def _open_shards(folder: Path) -> None:
    from graftwork.core.tensor_files import open_tensors

    source = open_tensors(folder / "shards")
    assert all(np.asarray(source[name]).shape == source.shape(name) for name in source)


def _load_adapter(folder: Path) -> None:
    from graftwork.methods.tuning.peft_folder import load_adapter

    load_adapter(folder / "adapter")


def _read_cache(folder: Path) -> None:
    import warnings

    from graftwork.data.array_cache import cached_arrays

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cached_arrays(folder, "entry", lambda: _CACHED)
    # A cache may cost time, never another answer.
    assert set(found) == set(_CACHED), f"the arrays {sorted(found)}"
    assert all(np.array_equal(found[name], _CACHED[name]) for name in _CACHED), "other arrays than were computed"


SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("safetensors", "models", ("a.safetensors", "base.safetensors"), "bytes", _merge),
        Subject("shards", "models", ("shards/*.safetensors", "shards/*.json"), "bytes", _open_shards),
        Subject("index", "models", ("shards/*.json",), "json", _open_shards),
        Subject("adapter-config", "models", ("adapter/*.json",), "json", _load_adapter),
        Subject("adapter-weights", "models", ("adapter/*.safetensors",), "bytes", _load_adapter),
        Subject("config", "run", ("model/config.json",), "json", _predict),
        Subject("lineage", "run", ("model/lineage.json",), "json", _resume_to_the_end),
        Subject("run-finished", "run", ("run.json",), "json", _resume),
        Subject("run", "run", ("run.json",), "json", _validate_and_resume),
        Subject("result", "run", ("result.json",), "json", _look_at_result),
        Subject("clock", "run", ("clock.json",), "json", _resume_to_the_end),
        Subject("job-results", "run", ("jobs/*/result.json",), "json", _resume_to_the_end),
        Subject("job-predictions", "run", ("jobs/*/predictions.safetensors",), "bytes", _resume_to_the_end),
        Subject("stored-suite", "run", ("suite/suite.json",), "json", _resume_to_the_end),
        Subject("stored-arrays", "run", ("suite/*.npy",), "bytes", _resume_to_the_end),
        Subject("suite-yaml", "settings", ("suite.yaml",), "yaml", _open_suite_file),
        Subject("plans", "settings", ("plans.toml",), "toml", _read_plans),
        Subject("cards", "settings", ("rep-mtl.toml", "ties.toml"), "toml", _read_cards),
        Subject("csv", "tables", ("table.csv",), "csv", _open_table("table.csv")),
        Subject("tsv", "tables", ("table.tsv",), "bytes", _open_table("table.tsv")),
        Subject("jsonl", "tables", ("table.jsonl",), "jsonl", _open_table("table.jsonl")),
        Subject("json", "tables", ("table.json",), "json", _open_table("table.json")),
        Subject("parquet", "tables", ("table.parquet",), "bytes", _open_table("table.parquet")),
        Subject("cache-manifest", "cache", ("entry/manifest.json",), "json", _read_cache),
        Subject("cache-arrays", "cache", ("entry/*.npy",), "bytes", _read_cache),
        Subject("cache-places", "cache", ("entry", "entry/*", ".entry.lock"), "place", _read_cache),
        Subject("run-places", "run", ("*", "model/*", "jobs/*", "jobs/*/*", "suite/*"), "place", _resume_to_the_end),
        Subject("model-places", "run", ("model", "model.onnx", "model/*", "result.json", "run.json"), "place", _predict),
    )
}  # fmt: skip
"""All kinds by name."""


def copy_of(base: Path, folder: Path) -> None:
    """Copy a folder with hard links, but for what graftwork appends to or locks in place."""

    def copy(source: str, target: str) -> None:
        if os.path.basename(source) in ("log.jsonl", ".lock") or os.path.basename(source).endswith(".lock"):
            shutil.copy2(source, target)
        else:
            os.link(source, target)

    shutil.copytree(base, folder, copy_function=copy)
