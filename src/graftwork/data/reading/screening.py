"""Which of many columns could determine a target, looked at in blocks: a quick filter in front of the exact scores of single
columns. Pure NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.reading.within_groups import mean_ranks
from graftwork.interfaces.task_kind import LabelColumn

__all__ = ["screened"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

_ROWS, _ROWS_OF_MANY = 512, 256
_MANY_LABELS = 20
_BLOCK = 512
_SMOOTH, _CHANGES = 0.7, 0.1
"""What a column that determines a target exceeds (or stays below) by far on a few hundred rows."""


def screened(
    columns: Sequence[Callable[[], Floats]], labels: Sequence[LabelColumn], *, seed: int = 0, block: int = _BLOCK
) -> NDArray[np.bool_]:
    """Return which columns of numbers could determine which label columns, bool ``[F, L]``.

    On a sample of at most 512 rows, sorted by the column, a determined number changes little from row to row, and determined
    classes change seldom. Missing cells stand in the middle; columns with many of them are not judged and stay.

    Args:
        columns: Each returns the numbers of a column, ``[N]``, NaN where missing; called once, block after block.
        labels: The targets' label columns.
        seed: Draws the sample.
        block: Columns that are looked at together.
    """
    most = _ROWS if len(labels) <= _MANY_LABELS else _ROWS_OF_MANY
    samples = [_sample(label, most, seed) for label in labels]
    result = np.zeros((len(columns), len(labels)), dtype=bool)
    for start in range(0, len(columns), block):
        whole = [column() for column in columns[start : start + block]]
        orders: dict[bytes, tuple[Array, NDArray[np.bool_]]] = {}
        for index, (label, rows) in enumerate(zip(labels, samples, strict=True)):
            if not len(rows):
                continue
            key = rows.tobytes()
            # Targets with the same labelled rows share the sorting, which is most of the work.
            if key not in orders:
                orders[key] = _order(np.stack([values[rows] for values in whole], axis=1))
            order, unjudged = orders[key]
            result[start : start + block, index] = _could(label, rows, order) | unjudged
    return result


def _sample(label: LabelColumn, most: int, seed: int) -> Array:
    known = np.flatnonzero(label.values >= 0 if label.form == "classes" else ~np.isnan(label.values))
    return Seeds(seed).numpy("screening").permutation(known)[:most]


def _order(values: Floats) -> tuple[Array, NDArray[np.bool_]]:
    """Return how to sort each column, and which have too many missing cells to be judged."""
    lost = ~np.isfinite(values)
    if lost.any():
        middle = np.nan_to_num(np.nanmedian(np.where(lost, np.nan, values), axis=0)) if not lost.all() else 0.0
        values = np.where(lost, middle, values)
    return np.argsort(values, axis=0, kind="stable"), lost.mean(axis=0) > 0.02


def _could(label: LabelColumn, rows: Array, order: Array) -> NDArray[np.bool_]:
    if label.form == "number":
        # Ranks: heavy tails would hide that the bulk follows.
        target = mean_ranks(np.asarray(label.values, dtype=np.float64)[rows])
        steps = np.diff(target[order], axis=0)
        return np.asarray(1.0 - (steps**2).mean(axis=0) / (2.0 * target.var() + 1e-12) > _SMOOTH)
    classes = label.values[rows].astype(np.int64)
    changes = (np.diff(classes[order], axis=0) != 0).sum(axis=0)
    return np.asarray(changes - (len(np.unique(classes)) - 1) <= _CHANGES * len(rows))
