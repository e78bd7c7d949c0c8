"""Requests for small runs, most of them with models that are written by hand, and the answers that are right."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from graftwork.serving.predict import Predictor

from .model_wholes import TUNED, write_tuned
from .wholes import run_builder

__all__ = ["KINDS", "Question", "is_right", "questions", "served", "write_run"]


class Question(NamedTuple):
    """A request, and the answer that is right."""

    body: bytes
    wanted: list[dict[str, Any]]
    """``{task: value}`` for each of its rows."""
    path: str = "/predict"
    tolerance: float = 1e-5
    """Of numbers, relative, absolute below 1."""


_WORDS = ("good", "bad", "day", "night", "to", "you", "a", "and", "", "Ünïcode", "x" * 300)


def _table(predictor: Predictor, rng: random.Random, count: int) -> tuple[str, list[Any], Any]:
    cities = list(predictor.encoder.columns[1].levels)  # type: ignore[attr-defined]
    rows = [
        {"age": round(rng.uniform(-50, 150), 3), "city": rng.choice(cities), "since": "2021-01-01", "id": 0} for _ in range(count)
    ]
    return "rows", rows, pd.DataFrame(rows)


def _text(predictor: Predictor, rng: random.Random, count: int) -> tuple[str, list[Any], Any]:
    texts = [" ".join(rng.choices(_WORDS, k=rng.randint(1, 12))) for _ in range(count)]
    return "texts", texts, texts


def _picture(predictor: Predictor, rng: random.Random, count: int) -> tuple[str, list[Any], Any]:
    from PIL import Image

    contents = []
    for _ in range(count):
        size = (rng.randint(1, 40), rng.randint(1, 40))
        target = io.BytesIO()
        Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1])).save(target, rng.choice(("PNG", "BMP", "TIFF")))
        contents.append(target.getvalue())
    return "images", [base64.b64encode(content).decode() for content in contents], contents


KINDS: Mapping[str, Callable[[Predictor, random.Random, int], tuple[str, list[Any], Any]]] = {
    "table": _table,
    "text": _text,
    "picture": _picture,
    "controllable": _picture,
    "deltas": _picture,
}
"""What makes rows: their key, their JSON, and what ``Predictor`` takes. ``run_builder`` writes the runs, but those of ``deltas``:
tuned models that one server holds together."""


def write_run(kind: str, folder: Path) -> None:
    """Write what :func:`served` serves."""
    if kind == "deltas":
        write_tuned(folder)
    else:
        getattr(run_builder, f"write_{kind}_run")(folder)


def served(kind: str, folder: Path) -> tuple[list[str], Path]:
    """Return the folders that a server of a kind is given, and a file that it must not need again."""
    if kind == "deltas":
        return [str(folder / name) for name in TUNED], folder / next(iter(TUNED)) / "delta" / "heads.safetensors"
    return [str(folder)], folder / "model.onnx"


def questions(kind: str, folder: Path, rng: random.Random, count: int) -> list[Question]:
    """Return requests of 1 to 5 rows for some of the tasks, and what the model predicts for them."""
    if kind != "deltas":
        return _of_run(kind, folder, rng, count, "/predict")
    parts = [_of_run(kind, folder / name, rng, count // len(TUNED), f"/models/{name}/predict") for name in TUNED]
    # The server computes with torch, rows of both models in one pass; `Predictor` with ONNX Runtime.
    return [question._replace(tolerance=1e-4) for part in parts for question in part]


def _of_run(kind: str, folder: Path, rng: random.Random, count: int, path: str) -> list[Question]:
    predictor = Predictor(folder, threads=1)
    # One number for each pixel is no column of a table.
    names = [task.name for task in predictor.tasks if task.name != "grey"]
    found = []
    for _ in range(count):
        key, rows, source = KINDS[kind](predictor, rng, rng.randint(1, 5))
        tasks = sorted(rng.sample(names, rng.randint(1, len(names))), key=names.index)
        frame = predictor.predict(source, tasks)
        columns = [name for name in frame.columns if name in tasks or name.endswith("]")]  # without those of probabilities
        wanted = [{name: frame[name].iloc[row] for name in columns} for row in range(len(rows))]
        found.append(Question(json.dumps({key: rows, "tasks": tasks}).encode(), wanted, path))
    return found


def is_right(answer: bytes, question: Question) -> bool:
    """Return whether an answer holds the predictions that are wanted."""
    wanted = question.wanted
    rows = [_flat(row) for row in json.loads(answer)["predictions"]]

    def same(value: Any, other: Any) -> bool:
        return value == other if isinstance(other, str) else abs(value - other) <= question.tolerance * max(1.0, abs(other))

    return len(rows) == len(wanted) and all(
        set(row) == set(right) and all(same(row[name], right[name]) for name in right)
        for row, right in zip(rows, wanted, strict=True)
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the predictions of a row under the names that columns of a table have."""
    found = {}
    for task, answer in row.items():
        values = answer.get("values")
        found |= {f"{task}[{name}]": value for name, value in values.items()} if values else {task: answer["value"]}
    return found
