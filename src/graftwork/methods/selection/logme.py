"""LogME: how probable the targets are under the best linear model on frozen features, all weights integrated out.

Paper: You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
https://arxiv.org/abs/2102.11005. Symbols: ``F`` features ``[n, D]``, ``y`` one target column (1 for the rows of a class, 0 for
others), prior precision ``alpha`` of the weights, noise precision ``beta``. The score is the mean over target columns of the
largest log evidence over ``alpha`` and ``beta``, divided by ``n``.

The paper looks for the maximum with a fixed-point iteration, column by column. With ``ratio = alpha / beta`` the best ``beta`` is
known in closed form, and what is left depends on the ratio alone. All columns share one eigendecomposition, so the evidence of
all of them is taken on one fine grid of ratios by a matrix product; a parabola through the best three points gives the maximum.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.math.feature_moments import ClassSums, FeatureMoments, ValueSums
from graftwork.methods.selection.base import CheckedScorer, class_count

__all__ = ["LogME", "best_log_evidence"]

Floats = NDArray[np.float64]
_RATIOS = np.logspace(-10.0, 4.0, 281)
"""In units of the largest eigenvalue. Below, columns that the features explain without error would score without bound; above,
all weights are 0."""


class LogME(CheckedScorer):
    """Reads class indices (one column a class that has rows) or values (one column a value).

    Args:
        standardize: Whether values are brought to mean 0 and deviation 1 first, as losses see them; the paper takes them as they
            are. Classes are never changed.
    """

    kinds = frozenset({"classes", "values"})

    def __init__(self, *, standardize: bool = True) -> None:
        self.standardize = standardize
        self._moments = FeatureMoments()
        self._classes = ClassSums()
        self._values = ValueSums()

    def add(self, rows: Floats, target: NDArray[np.generic], numbers: NDArray[np.int64] | None) -> None:
        """Add checked rows."""
        self._moments.update(rows)
        if self._target_kind == "classes":
            self._classes.update(rows, np.asarray(target, dtype=np.int64))
        else:
            self._values.update(rows, np.asarray(target, dtype=np.float64))

    def merge(self, other: Self) -> None:
        """Add what ``other`` saw."""
        self._join(other)
        self._moments.merge(other._moments)
        self._classes.merge(other._classes)
        self._values.merge(other._values)

    def finish(self) -> float:
        """Return the mean log evidence a row.

        Raises:
            DataError: If no row has a target, or all are of one class.
        """
        count = self._moments.count
        if self._target_kind == "classes" or not count:
            class_count(self, self._classes.counts)
            present = self._classes.present
            cross, squares = self._classes.sums[present], self._classes.counts[present]
        else:
            cross, squares = self._columns()
        return float(best_log_evidence(self._moments.gram, cross, squares, count).mean())

    def _columns(self) -> tuple[Floats, Floats]:
        count, values = self._moments.count, self._values
        if not self.standardize:
            return values.cross, values.squares
        mean = values.total / count
        variance = values.squares / count - mean**2
        varied = variance > np.finfo(np.float64).eps * count * np.maximum(values.squares / count, 1e-300)
        if not varied.any():
            raise DataError("LogME needs values that differ: every value is the same in all rows.")
        scale = np.sqrt(variance[varied])
        cross = (values.cross[varied] - mean[varied, None] * self._moments.total) / scale[:, None]
        return cross, np.full(int(varied.sum()), float(count))


def best_log_evidence(gram: Floats, cross: Floats, squares: Floats, count: int) -> Floats:
    """Return the largest log evidence of each target column, divided by the number of rows, ``[K]``.

    Args:
        gram: ``F^T F``, ``[D, D]``.
        cross: ``y^T F`` of each column, ``[K, D]``.
        squares: ``y^T y`` of each column, ``[K]``, above 0.
        count: Number of rows.
    """
    from scipy.linalg import eigh

    values, vectors = eigh(gram, driver="evd", check_finite=False)
    largest = max(float(values.max(initial=0.0)), np.finfo(np.float64).tiny)
    # What is below is rounding: such directions carry nothing.
    values = np.where(values > largest * len(values) * np.finfo(np.float64).eps, values, 0.0)
    kept = values[values > 0]
    ratios = _RATIOS * largest
    along = (cross @ vectors)[:, values > 0] ** 2
    # The square that no weights explain; a sum of squares, so never below 0 but for rounding.
    unexplained = np.maximum(squares - (along / kept).sum(axis=1), 1e-14 * squares)
    # Residual plus ratio times the squared weights, at the best weights of each ratio, [K, ratios].
    cost = unexplained[:, None] + (along / kept) @ (ratios / (kept[:, None] + ratios))
    occam = -np.log1p(kept[:, None] / ratios).sum(axis=0)
    evidence = 0.5 * occam / count - 0.5 * np.log(2.0 * np.pi * np.e * cost / count)
    best = np.clip(evidence.argmax(axis=1), 1, len(ratios) - 2)
    left, middle, right = (evidence[np.arange(len(best)), best + step] for step in (-1, 0, 1))
    bend, slope = left - 2.0 * middle + right, right - left
    # At an edge of the grid, or where the evidence is flat, the best point of the three is the answer.
    inside = (middle >= np.maximum(left, right)) & (bend < 0)
    top = middle - np.divide(slope**2, 8.0 * bend, out=np.zeros_like(middle), where=inside)
    return np.where(inside, top, np.maximum(np.maximum(left, right), middle))
