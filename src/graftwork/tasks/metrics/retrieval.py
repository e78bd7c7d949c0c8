"""Metrics of retrieval: is a row of the same id among the nearest? Targets ``[N]``, ids, -1 where missing; predictions ``[N,
D]``, vectors that are compared by their cosine."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Metric
from graftwork.math.weighted_sums import divide, from_sums

__all__ = ["RECALL_1", "RECALL_5", "RECALL_10", "rank_of_match"]

_BLOCK_ENTRIES = 1 << 22
"""Similarities held at a time: 32 MB."""


def rank_of_match(ids: Array, vectors: Array) -> Array:
    """Return how many rows of other ids are at least as near as the nearest row of the same id, int64 ``[N]``; -1 without such a
    row.

    Ties count against the row, so that vectors that are all the same retrieve nothing.
    """
    unit = np.asarray(vectors, dtype=np.float64)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    found = np.full(len(ids), -1, dtype=np.int64)
    # Rows of a block, so that block times all rows stays within the limit.
    size = max(1, _BLOCK_ENTRIES // max(len(ids), 1))
    for start in range(0, len(ids), size):
        rows = np.arange(start, min(start + size, len(ids)))
        likeness = np.round(unit[rows] @ unit.T, 9)  # equal vectors must be equally near, whatever the order of additions
        same = ids[rows, None] == ids
        # A row is not its own match.
        best = np.where(same & (rows[:, None] != np.arange(len(ids))), likeness, -np.inf).max(axis=1, initial=-np.inf)
        found[rows] = np.where(np.isfinite(best), ((likeness >= best[:, None]) & ~same).sum(axis=1), -1)
    return found


def _recall(target: Array, prediction: Array, near: int) -> Evaluator:
    rows = np.flatnonzero(target >= 0)
    rank = rank_of_match(target[rows], prediction[rows])
    columns = np.zeros((len(target), 2))
    columns[rows, 0], columns[rows, 1] = (rank >= 0) & (rank < near), rank >= 0
    return from_sums(columns, lambda sums: divide(sums[:, 0], sums[:, 1]))


def _recall_1(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows whose nearest other row has their id; rows whose id is alone do not count. Resampling weighs rows that ask,
    and all rows stay to be found."""
    return _recall(target, prediction, 1)


def _recall_5(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows that have a row of their id among the five nearest."""
    return _recall(target, prediction, 5)


def _recall_10(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows that have a row of their id among the ten nearest."""
    return _recall(target, prediction, 10)


RECALL_1 = Metric("recall_1", "recall at 1", True, 0.0, 1.0, _recall_1)
RECALL_5 = Metric("recall_5", "recall at 5", True, 0.0, 1.0, _recall_5)
RECALL_10 = Metric("recall_10", "recall at 10", True, 0.0, 1.0, _recall_10)
