"""Requests for the small runs whose models are written by hand, and the answers that are right."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from graftwork.serving.predict import Predictor

__all__ = ["KINDS", "Question", "is_right", "questions"]

Question = tuple[bytes, list[dict[str, Any]]]
"""The body of a request, and ``{task: value}`` for each of its rows."""
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
}
"""What makes rows for the runs that ``run_builder`` writes: their key, their JSON, and what ``Predictor`` takes."""


def questions(kind: str, folder: Path, rng: random.Random, count: int) -> list[Question]:
    """Return requests of 1 to 5 rows for some of the tasks, and what the model predicts for them."""
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
        found.append((json.dumps({key: rows, "tasks": tasks}).encode(), wanted))
    return found


def is_right(answer: bytes, wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether an answer holds the predictions that are wanted."""
    rows = [_flat(row) for row in json.loads(answer)["predictions"]]

    def same(value: Any, other: Any) -> bool:
        return value == other if isinstance(other, str) else abs(value - other) <= 1e-5 * max(1.0, abs(other))

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
