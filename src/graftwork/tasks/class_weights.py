"""How much rows of each class weigh in losses: alike, unless the user asks for classes that weigh the same together. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Floats

__all__ = ["ASKED", "POLICIES", "WEIGHTS", "balanced_weights", "weight_problems", "weights_of", "with_weights"]

ASKED = "class_weight"
"""Key of ``TaskSpec.details``: what the user asked for, one of :data:`POLICIES`."""
WEIGHTS = "class_weights"
"""Key of ``TaskSpec.details``: the weights that follow from the training rows; their mean over labelled rows is 1."""
POLICIES = ("balanced",)
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


def with_weights(spec: TaskSpec, counts: Array) -> TaskSpec:
    """Return the task with the weights that it asks for, by the rows of each class; as it is if it asks for none or has them."""
    if spec.details.get(ASKED) != "balanced" or spec.details.get(WEIGHTS):
        return spec
    return replace(spec, details={**spec.details, WEIGHTS: balanced_weights(counts).tolist()})


def weight_problems(spec: TaskSpec) -> Sequence[str]:
    """Return what is wrong with what a task says of class weights, one sentence each."""
    asked = spec.details.get(ASKED, POLICIES[0])
    return () if asked in POLICIES else (f"the class weight can be {' or '.join(POLICIES)}; got {asked!r}.",)
