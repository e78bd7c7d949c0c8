"""Sums over rows under many row weightings at once, and the quotients that metrics make of them. NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SumsEvaluator", "divide", "from_sums", "mean_of_columns"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


def divide(numerator: Array, denominator: Array) -> Floats:
    """Divide, with NaN (and no warning) where the denominator is zero.

    Example:
        >>> divide(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
        [0.5, nan]
    """
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def mean_of_columns(values: Floats) -> Floats:
    """Return the mean over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return divide(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


class SumsEvaluator:
    """Evaluator of a metric that depends on weighted sums over rows only, so that rows which always move together can be added
    up.

    Args:
        contributions: What each row adds to each sum, ``[N, K]``; zeros for rows without a label.
        combine: Sums ``[B, K]`` to values ``[B]``.
    """

    def __init__(self, contributions: Array, combine: Callable[[Floats], Floats]) -> None:
        self._table = np.ascontiguousarray(contributions, dtype=np.float64)
        self._combine = combine

    def __call__(self, weights: Floats) -> Floats:
        """Return the values under row weights ``[B, N]``."""
        return self._combine(weights @ self._table)

    def collapse(self, unit: NDArray[np.int64], num_units: int) -> SumsEvaluator:
        """Return the evaluator whose rows are the units, all of which occur: ``unit`` gives the unit of each row, ``[N]``."""
        # reduceat adds up runs of rows, so rows of one unit are put next to each other; every unit occurs, so no run is empty.
        order = np.argsort(unit, kind="stable")
        starts = np.searchsorted(unit[order], np.arange(num_units))
        return SumsEvaluator(np.add.reduceat(self._table[order], starts, axis=0), self._combine)


def from_sums(contributions: Array, combine: Callable[[Floats], Floats]) -> SumsEvaluator:
    """Return a :class:`SumsEvaluator`."""
    return SumsEvaluator(contributions, combine)
