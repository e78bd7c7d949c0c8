"""Thresholds above which yes-or-no questions are answered with yes: one half, unless the task says something else. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Floats

__all__ = ["KEY", "says_yes", "threshold_problems", "thresholds_of", "with_thresholds"]

KEY = "thresholds"
"""Key of ``TaskSpec.details``: a list with one number in (0, 1) for each question."""


def thresholds_of(spec: TaskSpec) -> Floats:
    """Return the threshold of each yes-or-no question of a task, ``[size]``; one half where the task has none.

    Example:
        >>> thresholds_of(TaskSpec(name="late", kind="binary", size=1)).tolist()
        [0.5]
    """
    found = spec.details.get(KEY)
    return np.full(spec.size, 0.5) if not found else np.asarray(found, dtype=np.float64)


def with_thresholds(spec: TaskSpec, thresholds: Sequence[float] | None) -> TaskSpec:
    """Return the task with other thresholds; None or none leaves it as it is.

    Raises:
        ConfigError: If the kind of the task has no thresholds, or these do not fit it.
    """
    return replace(spec, details={**spec.details, KEY: [float(one) for one in thresholds]}) if thresholds else spec


def says_yes(spec: TaskSpec, probabilities: Array) -> Array:
    """Return whether each question is answered with yes, booleans of the shape of ``[N]`` or ``[N, size]`` probabilities; of NaN
    it is not."""
    # In the type of the probabilities: a probability that is equal to the threshold is not above it.
    limits = thresholds_of(spec).astype(np.asarray(probabilities).dtype)
    return np.asarray(probabilities > (limits[0] if np.ndim(probabilities) == 1 or len(limits) == 1 else limits))


def threshold_problems(spec: TaskSpec) -> Sequence[str]:
    """Return what is wrong with the thresholds of a task of yes-or-no questions, one sentence each."""
    found = spec.details.get(KEY, ())
    is_list = isinstance(found, list | tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0.0 < one < 1.0 for one in found
    )
    if is_list and len(found) in (0, spec.size):
        return ()
    return (f"details['{KEY}'] must be a list of {spec.size} numbers between 0 and 1; got {found!r}.",)
