"""The commands that are killed and disturbed, the small data that they read, and what of their files must be equal in the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from .equal import contents, numbers
from .model_wholes import write_bert
from .processes import start

__all__ = ["KINDS", "Kind", "Place", "make_place", "trained"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a torture works."""

    data: Path
    """What the commands read."""
    work: Path
    """Where they write, each round in a folder of its own."""
    temporary: Path
    """Their folder for temporary files, and their cache."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of command."""

    name: str
    command: Callable[[Path, Path], list[str]]
    """Words after ``graftwork``, from the folder of the data and the folder to write into; given again, they go on."""
    found: Callable[[Path], Mapping[str, Any]]
    """What is compared of the folder that was written into."""
    data: str = "table"
    """What it reads: ``table``, ``text`` or ``pictures``, ``models``, ``bert`` (texts and a network), or nothing."""
    workers: str = ""
    """What becomes of a worker's death: ``retried``, or ``said`` by a command that ends; without workers empty."""
    can_resume: bool = False
    """Whether the command goes on with what a killed one left, and refuses other data and flags."""
    flag: tuple[str, str] = ("--seeds", "7")
    """A flag of it, and another value."""
    source_at: int = 1
    """Which of its words names the data."""
    caches: bool = False
    """Whether it keeps features in the cache."""
    needs_run: bool = False
    """Whether it reads a run that has been made of the data."""


_SOURCES = {
    "table": ("table.csv", "--targets", "price,late"),
    "text": ("notes.jsonl", "--text", "body", "--targets", "stars,topic", "--task-kind", "stars=regression"),
    "pictures": ("pictures", "--labels", "labels.csv", "--targets", "light,colour", "--image-size", "16"),
}
_ROWS = {"table": "rows.csv", "text": "new.jsonl", "pictures": "pictures"}


def _source(data: Path, kind: str) -> list[str]:
    return [str(data / word) if "." in word or word == "pictures" else word for word in _SOURCES[kind]]


def trained(
    verb: str, kind: str, workers: int, *more: str, plans: str = "separate,shared-trunk", backbone: str = "none"
) -> Callable[[Path, Path], list[str]]:
    """Return what makes the words of ``fit`` or ``compare``.

    Args:
        verb: One of these.
        kind: Data: ``table``, ``text`` or ``pictures``.
        workers: Processes that train at the same time.
        more: Further words; they come last, so that they count.
        plans: Plans by name.
        backbone: Pretrained backbone, or ``none``.
    """

    def command(data: Path, out: Path) -> list[str]:
        words = [verb, *_source(data, kind), "--steps", "12" if kind == "table" else "6", "--seeds", "1"]
        words += ["--plans", plans, "--backbone", backbone, "--workers", str(workers), "--quiet"]
        words += ["--checkpoint-seconds", "0.1", "--out", str(out / "run"), "--resume"]
        return [*words, *(["--folds", "0"] if verb == "fit" else []), *more]

    return command


_FROZEN = trained("compare", "pictures", 1, plans="separate,frozen-features", backbone="efficientnet_lite0")


def _merge(data: Path, out: Path) -> list[str]:
    models = [str(data / f"{name}.safetensors") for name in "abc"]
    return [
        "merge",
        "--base",
        str(data / "base.safetensors"),
        "--models",
        *models,
        "--out",
        str(out / "merged.safetensors"),
        "--quiet",
    ]


def _merge_yaml(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda data, out: ["merge", str(data / name), "--out", str(out / "merged"), "--quiet"]


def _tune(workers: int) -> Callable[[Path, Path], list[str]]:
    def command(data: Path, out: Path) -> list[str]:
        words = ["tune", f"hf:{data / 'bert'}", *_source(data, "text"), "--method", "lora", "--tuner", "r=2", "--steps", "8"]
        return [*words, "--set", "batch_size=16", "--workers", str(workers), "--quiet", "--out", str(out / "run"), "--resume"]

    return command


def _distill(workers: int) -> Callable[[Path, Path], list[str]]:
    def command(data: Path, out: Path) -> list[str]:
        words = ["distill", *_source(data, "table"), "--teacher", str(data / "features.npy"), str(data / "said.csv")]
        words += ["--way", "logits,features", "--weighting", "equal", "--steps", "8", "--seeds", "1", "--set", "batch_size=16"]
        return [*words, "--workers", str(workers), "--quiet", "--out", str(out / "run"), "--resume"]

    return command


def _rank(data: Path, out: Path) -> list[str]:
    words = ["rank", *_source(data, "pictures"), "--sources", "conv-mini", "--rows", "60", "--draws", "10"]
    return [*words, "--scores", "logme,knn", "--quiet", "--out", str(out / "run")]


def _predict(kind: str) -> Callable[[Path, Path], list[str]]:
    def command(data: Path, out: Path) -> list[str]:
        return ["predict", str(data / f"run-{kind}" / "run"), str(data / _ROWS[kind]), "--out", str(out / "predicted.csv")]

    return command


def _reproduce(workers: int) -> Callable[[Path, Path], list[str]]:
    def command(data: Path, out: Path) -> list[str]:
        return ["reproduce", "dann", "--smoke", "--workers", str(workers), "--resume", "--work", str(out / "work")]

    return command


def _files(folder: Path) -> dict[str, Any]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file()}


def _all_files(out: Path) -> dict[str, Any]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def _run(out: Path) -> dict[str, Any]:
    return contents(out / "run")


def _tuned(out: Path) -> dict[str, Any]:
    found = _run(out)
    sentences = found["result.json"]["verdict"]["sentences"]
    # It tells what was measured, for people; the numbers themselves are left out by their keys.
    found["result.json"]["verdict"]["sentences"] = [line for line in sentences if not line.startswith("A step takes")]
    return found


def _done(out: Path) -> dict[str, Any]:
    return {file.name: numbers(json.loads(file.read_bytes())) for file in sorted((out / "work" / "done").glob("*.json"))}


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("fit", trained("fit", "table", 2), _run, workers="retried", can_resume=True),
        Kind("fit-one", trained("fit", "table", 1), _run, workers="retried", can_resume=True),
        Kind("fit-text", trained("fit", "text", 2), _run, "text", workers="retried", can_resume=True),
        Kind("fit-pictures", trained("fit", "pictures", 2), _run, "pictures", workers="retried", can_resume=True),
        Kind("compare", trained("compare", "table", 2), _run, workers="retried", can_resume=True),
        Kind("compare-text", trained("compare", "text", 1), _run, "text", workers="retried", can_resume=True),
        Kind("compare-pictures", trained("compare", "pictures", 1), _run, "pictures", workers="retried", can_resume=True),
        Kind("compare-frozen", _FROZEN, _run, "pictures", workers="retried", can_resume=True, caches=True),
        Kind("compare-ray", trained("compare", "table", 2, "--engine", "ray"), _run, workers="retried", can_resume=True),
        Kind("reproduce", _reproduce(2), _done, "", workers="said"),
        Kind("reproduce-one", _reproduce(1), _done, "", workers="said"),
        Kind("tune", _tune(2), _tuned, "bert", workers="retried", can_resume=True, flag=("--steps", "12"), source_at=2),
        Kind("distill", _distill(2), _run, workers="retried", can_resume=True),
        Kind("rank", _rank, _run, "pictures"),
        Kind("tune-one", _tune(1), _tuned, "bert", workers="retried", can_resume=True, flag=("--steps", "12"), source_at=2),
        Kind("distill-one", _distill(1), _run, workers="retried", can_resume=True),
        Kind("merge", _merge, _files, "models"),
        Kind("merge-yaml", _merge_yaml("merge.yml"), _all_files, "models"),
        Kind("merge-stages", _merge_yaml("stages.yml"), _all_files, "models"),
        Kind("predict", _predict("table"), _files, "table", needs_run=True),
        Kind("predict-text", _predict("text"), _files, "text", needs_run=True),
        Kind("predict-pictures", _predict("pictures"), _files, "pictures", needs_run=True),
    )
}
"""All kinds by name."""


def make_place(folder: Path, kinds: Iterable[str], layers: int = 8) -> Place:
    """Write what the commands read; models to merge have ``layers`` tensors of 2 MB."""
    place = Place(folder / "data", folder / "work", folder / "tmp")
    for path in (place.data, place.work, place.temporary / "cache"):
        path.mkdir(parents=True)
    rng = np.random.default_rng(5)
    wanted = [KINDS[name] for name in kinds]
    write = {
        "table": _write_table,
        "text": _write_text,
        "bert": _write_bert,
        "pictures": _write_pictures,
        "models": lambda *parts: _write_models(*parts, layers),
    }
    for data in sorted({kind.data for kind in wanted} - {""}):
        write[data](place.data, rng)
    for data in sorted({kind.data for kind in wanted if kind.needs_run}):
        (place.data / f"run-{data}").mkdir()
        command = start(
            trained("fit", data, 1)(place.data, place.data / f"run-{data}"), folder / f"run-{data}.txt", place.temporary
        )
        if command.wait() != 0:
            raise RuntimeError(f"the run to predict with failed: {command.said()[-2000:]}")
    return place


def _write_table(folder: Path, rng: np.random.Generator) -> None:
    values = rng.normal(size=(160, 4))
    frame = pd.DataFrame(values, columns=list("abcd"))
    frame["place"] = np.array(["north", "south", "west"])[rng.integers(0, 3, 160)]
    signal = values[:, 0] + 0.5 * values[:, 1] * values[:, 2]
    frame["price"] = 10 + 3 * signal + 0.3 * rng.normal(size=160)
    frame["late"] = np.where(signal + 0.3 * rng.normal(size=160) > 0, "yes", "no")
    frame.to_csv(folder / "table.csv", index=False)
    # Two teachers: features of the rows, and answers.
    np.save(folder / "features.npy", values.astype(np.float32))
    frame[["price", "late"]].to_csv(folder / "said.csv", index=False)
    pd.concat([frame.drop(columns=["price", "late"])] * 400, ignore_index=True).to_csv(folder / "rows.csv", index=False)


def _write_text(folder: Path, rng: np.random.Generator) -> None:
    good, bad = ("fine", "bright", "quick", "kind"), ("slow", "broken", "late", "cold")
    rows: list[dict[str, Any]] = []
    for index in range(140):
        stars, topic = int(rng.integers(1, 6)), str(rng.choice(["food", "travel", "work"]))
        words = rng.choice(good if stars > 3 else bad, 4).tolist() + [topic] * int(rng.integers(1, 3)) + [f"day{index % 9}"]
        rows.append({"body": " ".join(rng.permutation(words)), "stars": stars, "topic": topic})
    _write_lines(folder / "notes.jsonl", rows)
    _write_lines(folder / "new.jsonl", [{"body": row["body"]} for row in rows] * 40)


def _write_bert(folder: Path, rng: np.random.Generator) -> None:
    _write_text(folder, rng)
    write_bert(folder / "bert")


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def _write_pictures(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    (folder / "pictures").mkdir()
    rows = []
    for index in range(120):
        light, colour = float(rng.uniform(0.2, 1)), int(rng.integers(0, 3))
        pixels = np.zeros((20, 20, 3))
        pixels[..., colour] = 255 * light
        pixels = np.clip(pixels + rng.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index}.png")
        rows.append({"file": f"{index}.png", "light": light, "colour": ("red", "green", "blue")[colour]})
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)


def _write_models(folder: Path, rng: np.random.Generator, layers: int) -> None:
    base = {f"layer{index}.weight": rng.normal(size=(512, 1024)).astype(np.float32) for index in range(layers)}
    save_file(base, folder / "base.safetensors")
    for name in "abc":
        changed = {key: value + 0.01 * rng.normal(size=value.shape).astype(np.float32) for key, value in base.items()}
        save_file(changed, folder / f"{name}.safetensors")
    # The same as folders, as mergekit reads them.
    for name in ("base", *"abc"):
        (folder / f"model-{name}").mkdir()
        os.link(folder / f"{name}.safetensors", folder / f"model-{name}" / "model.safetensors")
        (folder / f"model-{name}" / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": layers}))
    parts = "".join(f"  - model: model-{name}\n    parameters: {{weight: 0.4, density: 0.5}}\n" for name in "abc")
    (folder / "merge.yml").write_text(f"merge_method: ties\nbase_model: model-base\nmodels:\n{parts}dtype: float32\n")
    # A document whose result, in a temporary folder, goes into the next one.
    first = "name: first\nmerge_method: slerp\nbase_model: model-a\nmodels:\n  - model: model-b\nparameters: {t: 0.3}\ndtype: float32\n"
    second = "merge_method: linear\nmodels:\n" + "".join(
        f"  - model: {name}\n    parameters: {{weight: 0.5}}\n" for name in ("first", "model-c")
    )
    (folder / "stages.yml").write_text(f"{first}---\n{second}dtype: float32\n")
