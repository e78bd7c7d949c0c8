"""Nearest neighbours: how well the labels of a row's neighbours in feature space tell its own, every row left out in turn."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.math.row_sample import RowSample
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["NearestNeighbours"]

Floats = NDArray[np.float64]
_ROWS = 512
"""Rows whose similarities to all others are held at a time."""


class NearestNeighbours(CheckedScorer):
    """Reads class indices (score: share of rows named right, in [0, 1]) or values (mean R squared, at most 1).

    Args:
        neighbours: How many answer, at least 1; fewer where there are fewer rows.
        similarity: ``"cosine"`` of the features with their mean taken off, or ``"euclidean"``.
        max_rows: Rows that are kept, drawn from all: every row is compared with every other.
        seed: Draws them.

    Raises:
        ConfigError: If an argument is out of range.
    """

    kinds = frozenset({"classes", "values"})
    bounds = (float("-inf"), 1.0)

    def __init__(
        self,
        *,
        neighbours: int = 5,
        similarity: Literal["cosine", "euclidean"] = "cosine",
        max_rows: int = 5000,
        seed: int = 0,
    ) -> None:
        if neighbours < 1 or max_rows < 2 or similarity not in ("cosine", "euclidean"):
            raise ConfigError(
                "NearestNeighbours: neighbours is at least 1, max_rows at least 2, similarity 'cosine' or 'euclidean'; got "
                f"{neighbours!r}, {max_rows!r} and {similarity!r}."
            )
        self.neighbours, self.similarity = neighbours, similarity
        self._sample = RowSample(max_rows, seed=seed)

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        self._sample.update(rows.astype(np.float32), target, numbers)

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        self._sample.merge(other._sample)

    def finish(self) -> float:
        """Return the score.

        Raises:
            DataError: If there are fewer than two rows with a target, or their targets are all the same.
        """
        rows, target = self._sample.rows.astype(np.float64), self._sample.targets
        if self._target_kind != "values":
            labels = target.astype(np.int64)
            class_count(self, np.bincount(labels) if len(labels) else np.zeros(0))
            values = np.eye(int(labels.max()) + 1)[labels]
        else:
            values = target
            if len(values) < 2 or not (values.var(axis=0) > 0).any():
                raise DataError("NearestNeighbours needs at least two rows whose values differ.")
        rows -= rows.mean(axis=0)
        if self.similarity == "cosine":
            norms = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(norms > 0, norms, 1.0)
        answers = np.concatenate([self._answers(rows, values, start) for start in range(0, len(rows), _ROWS)])
        if self._target_kind != "values":
            return float((answers.argmax(axis=1) == labels).mean())
        varied = values.var(axis=0) > 0
        wrong = ((answers - values) ** 2).mean(axis=0)[varied]
        return float((1.0 - wrong / values.var(axis=0)[varied]).mean())

    def _answers(self, rows: Floats, values: Floats, start: int) -> Floats:
        """Return what the neighbours of a block of rows say together, ``[n, K]``."""
        block = rows[start : start + _ROWS]
        near = block @ rows.T
        if self.similarity == "euclidean":
            squares = (rows**2).sum(axis=1)
            near = 2.0 * near - squares - squares[start : start + len(block), None]
        near[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        count = min(self.neighbours, len(rows) - 1)
        chosen = np.argpartition(-near, count - 1, axis=1)[:, :count]
        if self._target_kind == "values":
            return np.asarray(values[chosen].mean(axis=1))
        # Between classes with equal votes the nearest rows decide: a sum of these weights is never that of other ranks.
        ranks = np.argsort(np.argsort(-np.take_along_axis(near, chosen, axis=1), axis=1), axis=1)
        return np.einsum("nk,nkc->nc", 1.0 + 1e-3 * 0.5**ranks, values[chosen])
