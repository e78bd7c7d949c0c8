"""Relative change of a metric and its mean over tasks, delta-m (Maninis et al. 2019, https://arxiv.org/abs/1904.08918).

``delta_m = 100 / T * sum_t (-1)^(l_t) (M_t - B_t) / B_t`` with ``l_t = 1`` where lower is better: percent, positive is better
than the reference ``B`` (the single-task models).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metrics import default_metric, find_metric
from graftwork.interfaces.metric import Floats, Metric

__all__ = ["SMALLEST_SCORE", "delta_m", "relative_change", "relative_changes", "skills"]

SMALLEST_SCORE = 0.05
"""References of a bounded score (kappa, R squared, IoU ...) closer to zero than this count as this, and baselines closer to a
perfect one are this far from it: a division by almost nothing would let one task decide the mean over all."""


def _metric(spec_or_metric: TaskSpec | str) -> Metric:
    return find_metric(spec_or_metric if isinstance(spec_or_metric, str) else default_metric(spec_or_metric))


def _floor(metric: Metric) -> float:
    """Return the smallest divisor of a change; errors have no natural scale, so theirs only avoids a division by 0."""
    return SMALLEST_SCORE if np.isfinite(metric.high) and metric.high <= 1.0 else 1e-12


def relative_changes(spec_or_metric: TaskSpec | str, values: ArrayLike, references: ArrayLike) -> Floats:
    """Return the change of each value against its reference in percent, arrays that broadcast; positive is better.

    Args:
        spec_or_metric: A task (its primary metric counts) or the name of a metric.
        values: Metric values.
        references: Metric values of the reference.
    """
    metric = _metric(spec_or_metric)
    new, old = np.asarray(values, dtype=np.float64), np.asarray(references, dtype=np.float64)
    sign = 1.0 if metric.higher_is_better else -1.0
    # Absolute value: of a negative reference (kappa, R squared) a larger score is still the better one.
    return 100.0 * sign * (new - old) / np.maximum(np.abs(old), _floor(metric))


def skills(spec_or_metric: TaskSpec | str, values: ArrayLike, references: ArrayLike) -> Floats:
    """Return which share of a reference's distance from a perfect score each value removes, in percent; at most 100.

    The skill score of forecasts: for errors the same as :func:`relative_changes`. Scores such as kappa are 0 for a constant answer,
    so a change relative to them is no number.

    Args:
        spec_or_metric: A task (its primary metric counts) or the name of a metric.
        values: Metric values.
        references: Metric values of the reference, a simple baseline.

    Example:
        >>> float(skills("accuracy", 0.75, 0.5)), float(skills("rmse", 1.5, 2.0))
        (50.0, 25.0)
        >>> round(float(skills("quadratic_kappa", 0.3, 0.0)), 6)
        30.0
    """
    metric = _metric(spec_or_metric)
    best = metric.high if metric.higher_is_better else metric.low
    if not np.isfinite(best):
        return relative_changes(spec_or_metric, values, references)
    new, old = np.asarray(values, dtype=np.float64), np.asarray(references, dtype=np.float64)
    # A baseline that is right on (nearly) all rows, as where one class is all there is, leaves nothing to remove.
    left: Floats = np.maximum(np.abs(best - old), _floor(metric))
    return 100.0 * (np.abs(best - old) - np.abs(best - new)) / left


def relative_change(spec_or_metric: TaskSpec | str, value: float, reference: float) -> float:
    """Return the change of ``value`` against ``reference`` in percent; positive is better.

    Example:
        >>> round(relative_change("rmse", 0.9, 1.0), 6)
        10.0
    """
    return float(relative_changes(spec_or_metric, value, reference))


@overload
def delta_m(tasks: Sequence[TaskSpec | str], values: Mapping[str, float], references: Mapping[str, float]) -> float: ...
@overload
def delta_m(tasks: Sequence[TaskSpec | str], values: Sequence[float], references: Sequence[float]) -> float: ...
def delta_m(
    tasks: Sequence[TaskSpec | str],
    values: Mapping[str, float] | Sequence[float],
    references: Mapping[str, float] | Sequence[float],
) -> float:
    """Return the mean relative change over tasks in percent; positive is better than the reference.

    For an interval over seeds and test rows see :mod:`graftwork.evaluation.changes`.

    Args:
        tasks: Tasks (their primary metrics count) or metric names.
        values: Metric values, ``{task: value}`` or in the order of ``tasks``.
        references: The same of the reference.

    Returns:
        Percent; tasks whose value or reference is NaN are left out, NaN if none remains.

    Raises:
        ValueError: If there are no tasks, or the numbers of values and tasks differ.
    """
    if not tasks:
        raise ValueError("`tasks` must hold at least one task.")
    names = [task if isinstance(task, str) else task.name for task in tasks]
    columns = [[side[name] for name in names] if isinstance(side, Mapping) else list(side) for side in (values, references)]
    if {len(column) for column in columns} != {len(names)}:
        raise ValueError(f"There are {len(names)} tasks but {len(columns[0])} values and {len(columns[1])} references.")
    changes = np.array([relative_change(*item) for item in zip(tasks, *columns, strict=True)])
    known = changes[~np.isnan(changes)]
    return float(known.mean()) if len(known) else float("nan")
