"""Thresholds that decide: yes-or-no questions are answered with yes above one half, and of several classes the most probable one is
chosen, unless the task says something else. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Floats

__all__ = ["KEY", "chosen_class", "says_yes", "threshold_problems", "thresholds_of", "with_thresholds"]

KEY = "thresholds"
"""Key of ``TaskSpec.details``: a list with one number in (0, 1) for each question, or for each of several classes."""


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
    if not thresholds:
        return spec
    try:
        numbers = [float(one) for one in thresholds]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The thresholds of task {spec.name!r} are numbers in (0, 1); got {thresholds!r:.80}.") from error
    return replace(spec, details={**spec.details, KEY: numbers})


def says_yes(spec: TaskSpec, probabilities: Array) -> Array:
    """Return whether each question is answered with yes, booleans of the shape of ``[N]`` or ``[N, size]`` probabilities; of NaN
    it is not."""
    # In the type of the probabilities: a probability that is equal to the threshold is not above it.
    limits = thresholds_of(spec).astype(np.asarray(probabilities).dtype)
    return np.asarray(probabilities > (limits[0] if np.ndim(probabilities) == 1 or len(limits) == 1 else limits))


def chosen_class(spec: TaskSpec, probabilities: Array) -> Array:
    """Return which of several classes each row is given, ``[N]`` for ``[N, C]`` probabilities: the one whose probability is the
    largest multiple of its threshold; the most probable one where the task has no thresholds.

    Of two classes with the thresholds ``1 - t`` and ``t`` that is the second one where its probability is above ``t``.

    Example:
        >>> rare = TaskSpec(name="size", kind="multiclass", size=3, details={KEY: [0.6, 0.3, 0.1]})
        >>> chosen_class(rare, np.array([[0.6, 0.2, 0.2], [0.7, 0.2, 0.1]])).tolist()
        [2, 0]
    """
    found = spec.details.get(KEY)
    # In float64: a quotient in the type of the probabilities could tie where they do not.
    scores = np.asarray(probabilities, dtype=np.float64) / np.asarray(found, dtype=np.float64) if found else probabilities
    return np.asarray(scores.argmax(axis=1))


def threshold_problems(spec: TaskSpec) -> Sequence[str]:
    """Return what is wrong with the thresholds of a task of yes-or-no questions or of several classes, one sentence each."""
    found = spec.details.get(KEY, ())
    is_list = isinstance(found, list | tuple) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and 0.0 < one < 1.0 for one in found
    )
    if is_list and len(found) in (0, spec.size):
        return ()
    return (f"details['{KEY}'] must be a list of {spec.size} numbers between 0 and 1; got {found!r}.",)
