"""Metric: prepared once for a target and a prediction, then evaluated under any number of row weightings.

Weights of one give the plain value; the counts of a bootstrap resample give the value on that resample. So one implementation of
each metric serves the score and its interval, and a thousand resamples cost one matrix product instead of a thousand calls.

A metric belongs to the task kinds that list it (:class:`graftwork.interfaces.task_kind.TaskKind`). Most depend on sums over rows
only:
:func:`graftwork.math.weighted_sums.from_sums` makes their evaluator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec

__all__ = ["Array", "Evaluator", "Floats", "Metric"]

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
    low: float
    high: float
    """Range of possible values; infinite where there is no bound."""
    prepare: Callable[[TaskSpec, Array, Array], Evaluator]
    """``(spec, target, prediction) -> evaluator`` for arrays of ``N`` rows."""
    of_decisions: bool = False
    """Whether it judges the class that is chosen, not its probability or the order of rows."""
    of_classes: bool = False
    """Whether it counts all classes alike, however rare: the most probable class is then not the best answer."""
    of_order: bool = False
    """Whether it judges in which order the scores put the rows: scores of different models are then no one order."""
