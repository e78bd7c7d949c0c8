"""What a metric is: prepared once for a target and a prediction, then evaluated under any number of row weightings.

Weights of one give the plain value; the counts of a bootstrap resample give the value on that resample. So one implementation of
each metric serves the score and its interval, and a thousand resamples cost one matrix product instead of a thousand calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskKind, TaskSpec

__all__ = ["Array", "Evaluator", "Floats", "Metric", "SumsEvaluator", "divide", "from_sums", "mean_of_columns"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

Evaluator = Callable[[Floats], Floats]
"""Row weights ``[B, N]`` (non-negative) in, values ``[B]`` out; NaN where a weighting leaves the metric undefined."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric and what is known of it."""

    name: str
    title: str
    """How a report names it."""
    higher_is_better: bool
    kinds: tuple[TaskKind, ...]
    """Task kinds it can judge."""
    low: float
    high: float
    """Range of possible values; infinite where there is no bound."""
    prepare: Callable[[TaskSpec, Array, Array], Evaluator]
    """``(spec, target, prediction) -> evaluator`` for arrays of ``N`` rows."""


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
    """Evaluator of a metric that depends on weighted sums over rows only, so that rows which always move together can be added up.

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
        order = np.argsort(unit, kind="stable")
        starts = np.searchsorted(unit[order], np.arange(num_units))
        return SumsEvaluator(np.add.reduceat(self._table[order], starts, axis=0), self._combine)


def from_sums(contributions: Array, combine: Callable[[Floats], Floats]) -> Evaluator:
    """Return a :class:`SumsEvaluator`."""
    return SumsEvaluator(contributions, combine)
