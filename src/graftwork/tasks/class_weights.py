"""How much rows of each class weigh in losses: alike, unless the user asks for classes that weigh the same together. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.data.options import CLASS_WEIGHTS
from graftwork.interfaces.metric import Array, Floats

__all__ = ["ASKED", "WEIGHTS", "balanced_weights", "column_weights", "weight_problems", "weights_of", "with_weights"]

ASKED = "class_weight"
"""Key of ``TaskSpec.details``: what the user asked for, one of :data:`~graftwork.data.options.CLASS_WEIGHTS`."""
WEIGHTS = "class_weights"
"""Key of ``TaskSpec.details``: the weights that follow from the training rows; their mean over labelled rows is 1."""
LARGEST = 100.0
"""A class that is rarer than that weighs as if it were not."""


def weights_of(spec: TaskSpec) -> Floats | None:
    """Return the weight of a row of each class, ``[C]``, or without and with each label, ``[L, 2]``; None if all weigh alike."""
    found = spec.details.get(WEIGHTS)
    return np.asarray(found, dtype=np.float64) if found else None


def balanced_weights(counts: Array) -> Floats:
    """Return weights with which all classes that occur weigh the same together, at most 100 times the smallest one.

    Args:
        counts: Rows of each class, ``[..., C]``.

    Returns:
        ``[..., C]``, with a mean of 1 over rows.

    Example:
        >>> balanced_weights(np.array([30, 10])).tolist()
        [0.6666666666666666, 2.0]
    """
    known = np.asarray(counts, dtype=np.float64)
    weights = 1.0 / np.maximum(known, 1.0)
    least = np.where(known > 0, weights, np.inf).min(axis=-1, keepdims=True)
    weights = np.minimum(weights, LARGEST * np.where(np.isfinite(least), least, 1.0))
    total = (weights * known).sum(axis=-1, keepdims=True)
    return np.asarray(weights * known.sum(axis=-1, keepdims=True) / np.where(total > 0, total, 1.0))


def column_weights(spec: TaskSpec, index: int) -> Floats | None:
    """Return the weights of the classes ``[C]`` of one label column of a task (``[2]`` for a flag); None if all weigh alike."""
    found = weights_of(spec)
    return found if found is None or found.ndim == 1 else found[index]


def with_weights(spec: TaskSpec, asked: str, counts: Array) -> TaskSpec:
    """Return the task with the weights that somebody asks for.

    Args:
        spec: The task.
        asked: One of :data:`~graftwork.data.options.CLASS_WEIGHTS`.
        counts: Training rows of each class, ``[C]``, or without and with each label, ``[L, 2]``.

    Raises:
        ConfigError: If there is no such policy.
    """
    if asked not in CLASS_WEIGHTS:
        raise ConfigError(f"Class weights of task {spec.name!r} can be {' or '.join(CLASS_WEIGHTS)}; got {asked!r}.")
    return replace(spec, details={**spec.details, ASKED: asked, WEIGHTS: balanced_weights(counts).tolist()})


def weight_problems(spec: TaskSpec) -> Sequence[str]:
    """Return what is wrong with the class weights of a task, one sentence each."""
    found = spec.details.get(WEIGHTS)
    if found is None:
        return ()
    try:
        values = np.asarray(found, dtype=np.float64)
        fits = values.ndim in (1, 2) and values.size > 0 and bool(np.isfinite(values).all() and (values >= 0).all())
    except (TypeError, ValueError):
        fits = False
    return () if fits else (f"details['{WEIGHTS}'] must be numbers of at least 0, one for each class; got {found!r}.",)
