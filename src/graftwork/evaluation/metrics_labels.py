"""Metrics of class decisions: accuracy, balanced accuracy, F1, quadratic kappa, class distance, log loss."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metric_types import Array, Evaluator, Floats, divide, from_sums, mean_of_columns

__all__ = ["accuracy", "balanced_accuracy", "class_distance", "decided_classes", "f1_macro", "log_loss", "quadratic_kappa"]

SMALLEST_PROBABILITY = 1e-7
"""Log loss clips here, about the resolution of float32 near one: a single sure and wrong row costs 16.1, not infinity."""


def decided_classes(spec: TaskSpec, prediction: Array) -> Array:
    """Return the predicted class of each row, int64 ``[N]``: probability above one half, or the largest.

    For a multi-label task: 0 or 1 for each label, ``[N, size]``.
    """
    if spec.kind in ("binary", "multilabel"):
        return (prediction > 0.5).astype(np.int64)
    return prediction.argmax(axis=1)


def _one_hot(classes: Array, num_classes: int, known: Array) -> Floats:
    return (classes[:, None] == np.arange(num_classes)) & known[:, None]


def _num_classes(spec: TaskSpec) -> int:
    return 2 if spec.kind == "binary" else spec.size


def accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows whose class is right."""
    known = target >= 0
    right = (decided_classes(spec, prediction) == target) & known
    return from_sums(np.stack([right, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def balanced_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean recall over the classes that occur in the target."""
    num_classes = _num_classes(spec)
    known = target >= 0
    truth = _one_hot(target, num_classes, known)
    right = truth & (decided_classes(spec, prediction) == target)[:, None]
    return from_sums(
        np.concatenate([right, truth], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, :num_classes], sums[:, num_classes:])),
    )


def f1_macro(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean F1 over the classes (or labels) that occur in the target or the prediction."""
    decided = decided_classes(spec, prediction)
    if spec.kind == "multilabel":
        known = ~np.isnan(target)
        truth, guess = (target == 1) & known, (decided == 1) & known
        num_classes = spec.size
    else:
        num_classes = _num_classes(spec)
        known = target >= 0
        truth, guess = _one_hot(target, num_classes, known), _one_hot(decided, num_classes, known)

    def combine(sums: Floats) -> Floats:
        both, either = sums[:, :num_classes], sums[:, num_classes:]
        return mean_of_columns(divide(2 * both, either))

    return from_sums(np.concatenate([truth & guess, truth.astype(np.int64) + guess], axis=1), combine)


def quadratic_kappa(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Agreement beyond chance with squared class distance; the marginals enter through their first two moments only."""
    known = (target >= 0).astype(np.float64)
    truth = np.where(target >= 0, target, 0).astype(np.float64)
    guess = decided_classes(spec, prediction) * known
    columns = np.stack([known, truth, guess, truth**2, guess**2, (truth - guess) ** 2], axis=1)

    def combine(sums: Floats) -> Floats:
        mean = divide(sums, sums[:, :1])
        by_chance = mean[:, 3] + mean[:, 4] - 2 * mean[:, 1] * mean[:, 2]
        # Everybody in one class, rightly: rounding leaves a chance distance around 1e-16, and kappa is undefined.
        return 1.0 - divide(mean[:, 5], np.where(by_chance > 1e-12, by_chance, 0.0))

    return from_sums(columns, combine)


def class_distance(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean distance, in classes, between predicted and true class of an ordinal task."""
    known = target >= 0
    distance = np.abs(decided_classes(spec, prediction) - target) * known
    return from_sums(np.stack([distance, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def log_loss(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean negative log probability of the truth, in nats; over all known labels for a multi-label task."""
    probability = np.clip(prediction.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    if spec.kind in ("binary", "multilabel"):
        known = target >= 0  # False for NaN as well
        loss = -np.where(target == 1, np.log(probability), np.log1p(-probability)) * known
        loss, known = loss.reshape(len(loss), -1).sum(axis=1), known.reshape(len(loss), -1).sum(axis=1)
    else:
        known = target >= 0
        chosen = np.take_along_axis(probability, np.where(known, target, 0)[:, None], axis=1)[:, 0]
        loss = -np.log(chosen) * known
    return from_sums(np.stack([loss, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))
