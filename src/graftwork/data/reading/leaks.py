"""How well one feature alone predicts a target, by the simplest rules there are: thresholds, look-up tables, interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.reading.column import Column, as_column
from graftwork.interfaces.task_kind import LabelColumn, task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LEAK_SCORE", "FeatureKeys", "single_feature_score"]

LEAK_SCORE = 0.999
"""Accuracy or R2 above which a single column is suspicious."""
_SAMPLE = 4000
_MANY = 100_000
_FEWEST = 50

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class FeatureKeys:
    """A feature column made ready for :func:`single_feature_score`."""

    keys: Array
    """Numbers ``[N]`` for ordered columns, level numbers for words."""
    known: NDArray[np.bool_]
    is_ordered: bool

    @classmethod
    def of(cls, values: pd.Series | Column, kind: str = "") -> Self:
        """Read a column, as what it is or as ``kind``."""
        column = as_column(values)
        kind = kind or column.kind
        if kind in ("numeric", "date"):
            numbers = (column.numbers() if kind == "numeric" else column.dates()).values
            # Infinity has no place between thresholds.
            return cls(numbers, np.isfinite(numbers), True)
        codes, _ = column.named(column.naming)
        return cls(codes, codes >= 0, False)


def single_feature_score(feature: FeatureKeys, spec: TaskSpec, target: Array, *, seed: int = 0) -> float | None:
    """Return how well one column predicts a target on a sample of at most 4000 labelled rows.

    Classes by numbers or dates: the share of rows that fit if every class is one interval of the values. Everything else: half
    of the rows serves as a look-up table for the other half, which gets the commonest label (mean) of its level, or the
    interpolated value.

    Args:
        feature: The column.
        spec: The task.
        target: Its target array.
        seed: Picks the sample.

    Returns:
        Accuracy for classes, R2 of values or ranks for regression (the worst of several values or labels); None if there are
        fewer than 50 usable rows, or one class holds more than 98 % of them.
    """
    scores = [_column_score(feature, column, seed) for column in task_kind(spec).label_columns(spec, target)]
    known = [score for score in scores if score is not None]
    # The worst: a leak of one value of several is no leak of the answer.
    return min(known) if known and len(known) == len(scores) else None


def _column_score(feature: FeatureKeys, column: LabelColumn, seed: int) -> float | None:
    if column.form == "classes":
        return _class_score(feature, column.values, feature.known & (column.values >= 0), seed)
    usable = feature.known & ~np.isnan(column.values)
    if column.form == "flag":
        return _class_score(feature, np.where(usable, column.values, 0).astype(np.int64), usable, seed)
    return _value_score(feature, column.values.astype(np.float64), usable, seed)


def _halves(usable: NDArray[np.bool_], seed: int) -> tuple[Array, Array] | None:
    rows = np.flatnonzero(usable)
    if len(rows) < _FEWEST:
        return None
    generator = Seeds(seed).numpy("leaks")
    # Shuffled before it is cut in two: tables are often sorted by their label. Of very many rows only the sample is drawn: every
    # pair of column and target asks.
    rows = (
        generator.permutation(rows)[:_SAMPLE] if len(rows) <= _MANY else rows[generator.choice(len(rows), _SAMPLE, replace=False)]
    )
    return rows[::2], rows[1::2]


def _class_score(feature: FeatureKeys, target: Array, usable: NDArray[np.bool_], seed: int) -> float | None:
    keys = feature.keys
    halves = _halves(usable, seed)
    if halves is None:
        return None
    table, held = halves
    # Guessing the commonest class would be right nearly always.
    if np.bincount(target[held]).max() > 0.98 * len(held):
        return None
    if feature.is_ordered:
        # Intervals have no parameters to fit beyond their ends, so all rows can judge.
        rows = np.concatenate([table, held])
        return _interval_share(keys[rows], target[rows])
    counts = np.zeros((int(keys.max()) + 1, int(target[usable].max()) + 1))
    # Plain indexing counts a repeated pair once.
    np.add.at(counts, (keys[table], target[table]), 1.0)
    # A level that the table half has not seen predicts nothing.
    predicted = np.where(counts[keys[held]].any(axis=1), counts[keys[held]].argmax(axis=1), -1)
    return float((predicted == target[held]).mean())


def _value_score(feature: FeatureKeys, target: Array, usable: NDArray[np.bool_], seed: int) -> float | None:
    keys = feature.keys
    halves = _halves(usable, seed)
    if halves is None:
        return None
    table, held = halves
    if feature.is_ordered:
        positions, inverse = np.unique(keys[table], return_inverse=True)
        # Equal keys have one mean, since interpolation needs rising positions.
        means = np.bincount(inverse, weights=target[table]) / np.bincount(inverse)
        predicted = np.interp(keys[held], positions, means)
        monotone = _rank_correlation(keys[held], target[held]) ** 2
    else:
        size = int(keys.max()) + 1
        counts = np.bincount(keys[table], minlength=size)
        sums = np.bincount(keys[table], weights=target[table], minlength=size)
        predicted = np.where(counts > 0, sums / np.maximum(counts, 1), target[table].mean())[keys[held]]
        monotone = 0.0
    spread = float(target[held].var())
    # Look-up fails in the tails, where a monotone relation still shows in the ranks.
    return None if spread <= 0 else max(monotone, float(1.0 - ((predicted - target[held]) ** 2).mean() / spread))


def _rank_correlation(first: Array, second: Array) -> float:
    ranks = []
    for values in (first, second):
        distinct, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(distinct) < 2:
            return 0.0
        # Mean rank of equal values (Spearman).
        ranks.append((np.cumsum(counts) - (counts - 1) / 2.0)[inverse])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _interval_share(keys: Array, classes: Array) -> float:
    """Return 1 if classes are intervals of the keys; every further change of class along the sorted keys costs one row."""
    # Of one key, equal classes stand together; otherwise their order would look like changes.
    order = np.lexsort((classes, keys))
    ordered, values = classes[order], keys[order]
    changes = ordered[1:] != ordered[:-1]
    same_key = values[1:] == values[:-1]
    # n classes in intervals change n - 1 times. A key with two classes belongs to no interval and costs one more.
    surplus = int(changes.sum()) - (len(np.unique(classes)) - 1) + int((changes & same_key).sum())
    return 1.0 - max(surplus, 0) / len(keys)
