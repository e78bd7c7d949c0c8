"""Answers of tasks as JSON and words, as several kinds write them. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array

__all__ = ["SURE", "class_names", "flat_rows", "listed", "logits", "map_answers", "named", "numbers_of", "stacked", "value_names"]


def class_names(spec: TaskSpec, size: int) -> list[str]:
    """Return the names of ``size`` classes or labels: those of the task, or numbers."""
    # Names that are more or fewer than the classes cannot be matched with them; numbers mislead nobody.
    return list(spec.classes) if len(spec.classes) == size else [str(index) for index in range(size)]


def value_names(spec: TaskSpec, size: int) -> list[str]:
    """Return the names of ``size`` values: the task's columns, or numbers."""
    return list(spec.columns) if len(spec.columns) == size else [str(index) for index in range(size)]


def flat_rows(values: Array) -> Array:
    """Return values ``[N, ...]`` as ``[N, P]``, also without a row, where numpy cannot know what -1 stands for.

    Example:
        >>> flat_rows(np.zeros((0, 2, 3))).shape, flat_rows(np.zeros(4)).shape
        ((0, 6), (4, 1))
    """
    return values.reshape(len(values), math.prod(values.shape[1:]))


SURE = 1e-4
"""Probabilities are kept this far from 0 and 1, whose logarithms are infinite."""


def logits(probabilities: Array) -> Array:
    """Return the logits of probabilities, finite where those are 0 or 1.

    Example:
        >>> logits(np.array([0.5, 0.0])).round(2).tolist()
        [0.0, -9.21]
    """
    inside = np.clip(probabilities, SURE, 1.0 - SURE)
    return np.log(inside) - np.log1p(-inside)


def numbers_of(name: str, column: Array) -> Array:
    """Return a column of a table of predictions, ``[N]``, as float64; missing cells are NaN.

    Raises:
        DataError: If a cell is no number (a second row of headings, say); the message names column, row and cell.

    Example:
        >>> numbers_of("price", np.array(["1.5", None], dtype=object)).tolist()
        [1.5, nan]
    """
    try:
        return np.asarray(column, dtype=np.float64)
    # Words, lists and objects, whole numbers of hundreds of digits.
    except (ValueError, TypeError, OverflowError):
        place, cell = next(((row, cell) for row, cell in enumerate(column.tolist()) if not _is_number(cell)), (0, column))
        raise DataError(
            f"Column {name!r:.80} holds {cell!r:.60} in row {place + 1:,}, which is no number that can be taught. Predictions are "
            "numbers in every row; correct the cell, or leave the column out."
        ) from None


def _is_number(cell: Any) -> bool:
    try:
        return not np.asarray(cell, dtype=np.float64).ndim
    except (ValueError, TypeError, OverflowError):
        return False


def stacked(task: str, names: Sequence[str], columns: Mapping[str, Array]) -> Array | None:
    """Return the columns ``task[name]`` side by side, ``[N, names]`` float64; None if there are no names or one is missing.

    Raises:
        DataError: If a cell is no number.
    """
    each = [f"{task}[{name}]" for name in names]
    if not each or not all(name in columns for name in each):
        return None
    return np.stack([numbers_of(name, columns[name]) for name in each], axis=1)


def named(spec: TaskSpec, index: int) -> str:
    """Return the name of one class."""
    return spec.classes[index] if 0 <= index < len(spec.classes) else str(index)


def listed(column: Array) -> list[Any]:
    """Return a column as JSON values; numbers that are not finite become None."""
    if column.dtype.kind != "f":
        return column.tolist()
    # JSON has no NaN and no infinity.
    return [value if math.isfinite(value) else None for value in column.tolist()]


def map_answers(values: Array) -> list[dict[str, Any]]:
    """Return ``map`` (or one of ``maps`` for each channel) per row of ``[N, C, *positions]``, rounded to 4 digits."""
    answers: list[dict[str, Any]] = []
    for row in values:
        # float64 first: what float32 rounds to 0.1234 is written as 0.1234000027179718.
        rounded = np.round(row.astype(np.float64), 4).astype(object)
        rounded[~np.isfinite(row)] = None
        channels: list[Any] = rounded.tolist()
        answers.append({"map": channels[0]} if len(channels) == 1 else {"maps": channels})
    return answers
