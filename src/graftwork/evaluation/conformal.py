"""Intervals for predicted numbers, from errors on rows that were kept back (split conformal prediction).

Vovk et al., "Algorithmic Learning in a Random World", 2005; Lei et al., "Distribution-Free Predictive Inference for Regression",
2018. If new rows come from where the kept-back rows came from, at least the asked share of them lies in its interval. All intervals of
a value have one width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.values import ValueKind

__all__ = ["MOST_KEPT", "check_level", "half_width", "has_errors", "kept_errors", "read_errors", "widths"]

MOST_KEPT = 400
"""Most errors that are kept for each value; of more rows, as many quantiles."""


def kept_errors(task: TaskSpec, target: NDArray[Any], prediction: NDArray[Any]) -> list[list[float]]:
    """Return the sorted absolute errors of each value of a regression task, at most 400 of them.

    Of ``n`` errors, number ``j`` of ``m`` kept ones is the smallest of which the share ``j / (m + 1)`` of ``n + 1`` is no
    larger, so that :func:`half_width` never is too narrow.

    Args:
        task: A regression task without positions.
        target: ``[N, size]``, NaN where a label is missing.
        prediction: ``[N, size]``, in the same units.

    Returns:
        A list for each value; empty where no row has a label.
    """
    errors = np.abs(np.asarray(prediction, dtype=np.float64) - np.asarray(target, dtype=np.float64)).reshape(
        len(target), task.size
    )
    found = []
    for column in errors.T:
        ordered = np.sort(column[np.isfinite(column)])
        number, kept = len(ordered), min(len(ordered), MOST_KEPT)
        places = np.ceil((number + 1) * np.arange(1, kept + 1) / (kept + 1) - 1e-9).astype(int) - 1
        found.append([float(f"{value:.6g}") for value in ordered[np.minimum(places, number - 1)]] if kept else [])
    return found


def check_level(level: float) -> None:
    """Look at the share of rows that intervals are to hold.

    Raises:
        ConfigError: If it is not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"An interval holds a share of the rows between 0 and 1, such as 0.9 or 90 %; got {level:g}.")


def half_width(errors: Sequence[float], level: float) -> float:
    """Return the distance between a prediction and the ends of its interval; NaN if there are too few errors for the level.

    Args:
        errors: What :func:`kept_errors` gives for one value.
        level: Share of the rows that lie in their intervals, in (0, 1).

    Example:
        >>> half_width([1.0, 2.0, 3.0, 4.0], 0.75)
        4.0
    """
    place = max(1, math.ceil((len(errors) + 1) * level - 1e-9))
    return float(errors[place - 1]) if place <= len(errors) else math.nan


def has_errors(task: TaskSpec) -> bool:
    """Return whether predictions of a task get intervals: it is made of numbers, one answer for each row."""
    kind = task_kind(task)
    return isinstance(kind, ValueKind) and not kind.over_positions


def read_errors(config: Mapping[str, Any], task: TaskSpec) -> list[list[float]]:
    """Return the errors of each value of a task that a model's ``config.json`` holds; empty lists if it holds none that fit."""
    # One empty list for all: the size is as written in the file, and nobody adds to these lists.
    nothing: list[list[float]] = [[]] * task.size
    stored = config.get("kept_errors")
    columns = stored.get(task.name) if isinstance(stored, Mapping) else None
    if not isinstance(columns, list) or len(columns) != task.size:
        return nothing
    try:
        return [sorted(float(value) for value in column) for column in columns]
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of hundreds of digits
        return nothing


def widths(task: TaskSpec, errors: Sequence[Sequence[float]], level: float) -> NDArray[np.float64]:
    """Return the distance between predictions and the ends of their intervals, one for each value of the task.

    Raises:
        ConfigError: If the level is out of range, or too few rows were kept back for it.
    """
    check_level(level)
    found = np.array([half_width(column, level) for column in errors])
    if np.isnan(found).any():
        fewest = min(map(len, errors), default=0)
        known = (
            f"{fewest} rows were kept back, which suffice for up to {fewest / (fewest + 1):.0%}"
            if fewest
            else ("the model was stored without errors on kept-back rows")
        )
        raise ConfigError(f"Task {task.name!r} has no interval for {level:.4g} of the rows: {known}.")
    return found
