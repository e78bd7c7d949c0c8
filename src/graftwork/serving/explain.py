"""Why a row is predicted as it is: each column in turn is replaced by those of background rows, and the prediction moves. No torch.

The effect of a column is the prediction minus its mean over background rows with that column taken from them: occlusion of one column at
a time. It answers "what if this cell were that of another row?". Columns that say the same can hide each other, effects do not add up to
the prediction (they are no Shapley values), and they describe the model, not causes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.encoders import encoder_from_state
from graftwork.data.input_columns import InputColumn, exchange, input_columns
from graftwork.data.output_columns import row_name
from graftwork.data.store import is_stored_suite, load_suite
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind
from graftwork.serving.sources import open_source

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.serving.predict import Predictor

__all__ = ["BACKGROUND", "background_inputs", "explain"]

Array = NDArray[Any]
BACKGROUND = 30
"""Training rows that stand for "another row"."""
_MOST_SIGNS = 80
_BLOCK_BYTES = 64 * 2**20
"""Bytes of inputs that are predicted at a time."""


def explain(
    predictor: Predictor,
    source: Any,
    tasks: Sequence[str] | None = None,
    *,
    most: int | None = None,
    background: int = BACKGROUND,
) -> pd.DataFrame:
    """Return by how much each column moves the prediction of each row.

    Args:
        predictor: The model of a run.
        source: Rows, as :meth:`.Predictor.predict` takes them.
        tasks: Names of tasks, all by default.
        most: Columns of each row and task, those that move its prediction the most; None gives all.
        background: Training rows that columns are taken from, at least 1; drawn at random, the same in every call.

    Returns:
        A line for each row, task and column, the largest effects first: ``task`` (``task[name]`` for one of several values or labels),
        ``prediction`` (a number, or the class that is predicted), ``column``, ``cell`` (what stands there, as text; empty for pictures and
        where columns were joined) and ``effect``: how much higher the number, or the probability of the predicted class, is than with
        the column of other rows. The index names the row or file.

    Raises:
        DataError: If rows cannot be read.
        ConfigError: If a task is unknown or predicts per position, or a number is below 1.
        FileFormatError: If the run folder holds no training rows (``suite/``).
    """
    pandas = require("pandas", extra="predict", purpose="Predicting")
    if (most is not None and most < 1) or background < 1:
        raise ConfigError(f"Columns and background rows must be at least 1; got {most} and {background}.")
    specs = predictor.specs(tasks)
    others = background_inputs(predictor, background)
    columns = input_columns(predictor.inputs, others)
    rows = open_source(source, predictor.encoder)
    parts: list[_Lines] = []
    start = 0
    for inputs in predictor.encoder.transform_batches(rows.batches(predictor.batch_size)):
        for spec in specs:
            parts += _lines(predictor, spec, inputs, others, columns, most, start)
        start += len(next(iter(inputs.values())))
    places = np.concatenate([part.rows for part in parts])
    # Row by row; tasks, values and columns keep their order.
    order = np.argsort(places, kind="stable")
    names = np.array([column.name for column in columns], dtype=object)
    chosen = np.concatenate([part.columns for part in parts])[order]
    places = places[order]
    content = {
        "task": np.concatenate([np.full(len(part.rows), part.name, dtype=object) for part in parts])[order],
        "prediction": np.concatenate([part.predictions.astype(object) for part in parts])[order],
        "column": names[chosen],
        "cell": _cells(rows.rows, names, places, chosen),
        "effect": np.concatenate([part.effects for part in parts])[order],
    }
    index = rows.index[places].rename(row_name(rows.index.name, tuple(content)))
    frame: pd.DataFrame = pandas.DataFrame(content, index=index)
    return frame


def background_inputs(predictor: Predictor, number: int) -> dict[str, Array]:
    """Return the inputs of some training rows of the run, as its model reads them.

    Raises:
        FileFormatError: If the folder holds no training rows, or not what the model reads.
    """
    folder = Path(predictor.folder) / "suite"
    if not is_stored_suite(folder):
        raise FileFormatError(
            f"{predictor.folder} holds no training rows (the folder suite/), which explanations compare with. Give the run folder that "
            "graftwork fit wrote, whole."
        )
    suite = load_suite(folder)
    train = np.asarray(suite.splits["train"], dtype=np.int64)
    rows = np.sort(Seeds(0).numpy("background").permutation(train)[:number])
    found: dict[str, Array] = {}
    for name, spec in predictor.inputs.items():
        stored = suite.input_specs.get(name)
        if stored is not None and (not spec.encoder or stored.encoder == spec.encoder):
            names = list(spec.arrays.values()) or list(suite.inputs)
            found |= {array: np.asarray(suite.inputs[array][rows]) for array in names if array in suite.inputs}
            continue
        # Pretrained backbones read the raw rows with an encoder of their own.
        made = encoder_from_state(spec.encoder).transform(_raw(suite, spec.kind, rows, folder))
        found |= {spec.arrays.get(array, array): values for array, values in made.items()}
    return found


def _raw(suite: Suite, kind: str, rows: NDArray[np.int64], folder: Path) -> list[Any]:
    if kind not in suite.raw:
        raise FileFormatError(f"{folder} does not hold the raw rows of the input {kind!r}, so nothing can be explained with it.")
    return [suite.raw[kind][row] for row in rows.tolist()]


def _cells(rows: Any, names: Array, places: NDArray[np.int64], chosen: NDArray[np.int64]) -> Array:
    """Return what stands in the columns of a table, as texts; nothing for what is no column of it."""
    found = np.full(len(places), "", dtype=object)
    for number, name in enumerate(names):
        if hasattr(rows, "columns") and name in rows.columns:
            own = chosen == number
            texts = np.array([_shown(cell) for cell in rows[name].tolist()], dtype=object)
            found[own] = texts[places[own]]
    return found


def _shown(cell: Any) -> str:
    # NaN is not equal to itself.
    text = "" if cell is None or (isinstance(cell, float) and cell != cell) else str(cell)
    return text if len(text) <= _MOST_SIGNS else f"{text[: _MOST_SIGNS - 1]}…"


@dataclass(frozen=True, slots=True)
class _Lines:
    """Lines of one number that is explained, row after row."""

    name: str
    rows: NDArray[np.int64]
    predictions: Array
    columns: NDArray[np.int64]
    effects: NDArray[np.float64]


def _lines(
    predictor: Predictor,
    spec: TaskSpec,
    inputs: Mapping[str, Array],
    others: Mapping[str, Array],
    columns: Sequence[InputColumn],
    most: int | None,
    start: int,
) -> list[_Lines]:
    """Return the lines of one task for the rows of a batch, the first of which has the number ``start``."""
    shown, scores, classes = _explained(spec, predictor.run_arrays(inputs, [spec.name])[spec.name])
    number, size = len(next(iter(inputs.values()))), len(next(iter(others.values())))
    effects = {name: np.zeros((number, len(columns))) for name in scores}
    for place, column in enumerate(columns):
        for part, answers in _moved(predictor, spec, inputs, others, column):
            # The probability of the class that is predicted for the row as it is.
            own = None if classes is None else np.repeat(classes[part], size)
            for name, values in _explained(spec, answers, own)[1].items():
                effects[name][part, place] = scores[name][part] - values.reshape(-1, size).mean(axis=1)
    found = []
    for name, effect in effects.items():
        order = np.argsort(-np.abs(effect), axis=1, kind="stable")[:, :most]
        width = order.shape[1]
        found.append(
            _Lines(
                name=name,
                rows=np.repeat(np.arange(start, start + number), width),
                predictions=np.repeat(shown[name], width),
                columns=order.reshape(-1),
                effects=np.take_along_axis(effect, order, axis=1).reshape(-1),
            )
        )
    return found


def _explained(
    spec: TaskSpec, answers: Array, classes: Array | None = None
) -> tuple[dict[str, Array], dict[str, NDArray[np.float64]], Array | None]:
    """Return what is shown and what is explained of answers, by name, and the predicted classes (None if they are none).

    Args:
        spec: The task.
        answers: Answers of ``N`` rows.
        classes: Names of the classes whose probabilities are explained, ``[N]``; by default those that are predicted.
    """
    table = task_kind(spec).table(spec, answers, probabilities=True)
    main = table.get(spec.name)
    if main is None:
        # Several values or labels, each by itself.
        return dict(table), {name: np.asarray(column, dtype=np.float64) for name, column in table.items()}, None
    if main.dtype != object:
        return {spec.name: main}, {spec.name: np.asarray(main, dtype=np.float64)}, None
    wanted = main if classes is None else classes
    values = np.asarray(table[f"{spec.name}_probability"], dtype=np.float64).copy()
    for name in set(wanted.tolist()):
        # Sequences have too many classes for a column each.
        if f"{spec.name}[{name}]" in table:
            own = wanted == name
            values[own] = table[f"{spec.name}[{name}]"][own]
    return {spec.name: main}, {spec.name: values}, wanted


def _moved(
    predictor: Predictor, spec: TaskSpec, inputs: Mapping[str, Array], others: Mapping[str, Array], column: InputColumn
) -> Iterator[tuple[slice, Array]]:
    """Yield answers for blocks of rows, each row once for every background row whose column it has: ``[rows * background, ...]``."""
    number, size = len(next(iter(inputs.values()))), len(next(iter(others.values())))
    each = size * max(1, sum(int(np.asarray(array[:1]).nbytes) for array in inputs.values()))
    block = max(1, _BLOCK_BYTES // each)
    for start in range(0, number, block):
        part = slice(start, min(start + block, number))
        arrays = {name: np.repeat(array[part], size, axis=0) for name, array in inputs.items()}
        rows = np.tile(np.arange(size), part.stop - start)
        exchange(arrays, column, slice(None), others, rows)
        yield part, predictor.run_arrays(arrays, [spec.name])[spec.name]
