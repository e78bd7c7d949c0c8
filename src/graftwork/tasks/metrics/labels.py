"""Metrics of class decisions: accuracy, balanced accuracy, F1, quadratic kappa, class distance, log loss.

Targets are classes ``[N]`` or labels ``[N, size]`` that apply (1) or not (0); predictions are one probability for each entry of
the target, or ``[N, size]`` probabilities of the classes.
"""

from __future__ import annotations

import math

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.weighted_sums import divide, from_sums, mean_of_columns
from graftwork.tasks.thresholds import chosen_class, says_yes

__all__ = ["ACCURACY", "BALANCED_ACCURACY", "CLASS_DISTANCE", "F1_MACRO", "LOG_LOSS", "QUADRATIC_KAPPA"]

SMALLEST_PROBABILITY = 1e-7
"""Log loss clips here, about the resolution of float32 near one: a single sure and wrong row costs 16.1, not infinity."""


def _decided(spec: TaskSpec, target: Array, prediction: Array) -> Array:
    """Return the predicted class of each entry of the target: probability above the threshold, or the largest."""
    # One probability for each entry of the target: binary rows or multilabel cells.
    if prediction.ndim == target.ndim:
        return says_yes(spec, prediction).astype(np.int64)
    return chosen_class(spec, prediction)


def _one_hot(classes: Array, num_classes: int, known: Array) -> Floats:
    return (classes[:, None] == np.arange(num_classes)) & known[:, None]


def _num_classes(spec: TaskSpec) -> int:
    return max(spec.size, 2)


def _accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of rows whose class is right."""
    known = target >= 0
    # A row that lacks a label is in neither column: no resample can count it.
    right = (_decided(spec, target, prediction) == target) & known
    return from_sums(np.stack([right, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def _balanced_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean recall over the classes that occur in the target."""
    num_classes = _num_classes(spec)
    known = target >= 0
    truth = _one_hot(target, num_classes, known)
    right = truth & (_decided(spec, target, prediction) == target)[:, None]
    return from_sums(
        np.concatenate([right, truth], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, :num_classes], sums[:, num_classes:])),
    )


def _f1_macro(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean F1 over the classes (or labels) that occur in the target or the prediction."""
    decided = _decided(spec, target, prediction)
    if target.ndim == 2:
        known = ~np.isnan(target)
        truth, guess = (target == 1) & known, (decided == 1) & known
        num_classes = spec.size
    else:
        num_classes = _num_classes(spec)
        known = target >= 0
        truth, guess = _one_hot(target, num_classes, known), _one_hot(decided, num_classes, known)

    def combine(sums: Floats) -> Floats:
        both, either = sums[:, :num_classes], sums[:, num_classes:]
        # F1 = 2 TP / (true + predicted). Sums over resampled rows come first, the ratio of each class last.
        return mean_of_columns(divide(2 * both, either))

    return from_sums(np.concatenate([truth & guess, truth.astype(np.int64) + guess], axis=1), combine)


def _quadratic_kappa(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Agreement beyond chance with squared class distance; the marginals enter through their first two moments only."""
    known = (target >= 0).astype(np.float64)
    truth = np.where(target >= 0, target, 0).astype(np.float64)
    guess = _decided(spec, target, prediction) * known
    # E (t - g)^2 under independence is E t^2 + E g^2 - 2 E t E g: no table of classes by classes for each resample.
    columns = np.stack([known, truth, guess, truth**2, guess**2, (truth - guess) ** 2], axis=1)

    def combine(sums: Floats) -> Floats:
        mean = divide(sums, sums[:, :1])
        by_chance = mean[:, 3] + mean[:, 4] - 2 * mean[:, 1] * mean[:, 2]
        # Everybody in one class, rightly: rounding leaves a chance distance around 1e-16, and kappa is undefined.
        return 1.0 - divide(mean[:, 5], np.where(by_chance > 1e-12, by_chance, 0.0))

    return from_sums(columns, combine)


def _class_distance(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean distance, in classes, between predicted and true class of an ordinal task."""
    known = target >= 0
    distance = np.abs(_decided(spec, target, prediction) - target) * known
    return from_sums(np.stack([distance, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def _log_loss(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean negative log probability of the truth, in nats; over all known labels for a multi-label task."""
    probability = np.clip(prediction.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    if prediction.ndim == target.ndim:
        known = target >= 0  # False for NaN as well
        loss = -np.where(target == 1, np.log(probability), np.log1p(-probability)) * known
        # A row is the unit of resampling, so the losses of its labels are summed, and their number with them.
        flat = (len(loss), math.prod(loss.shape[1:]))  # not -1, which is undefined without a row
        loss, known = loss.reshape(flat).sum(axis=1), known.reshape(flat).sum(axis=1)
    else:
        known = target >= 0
        chosen = np.take_along_axis(probability, np.where(known, target, 0)[:, None], axis=1)[:, 0]
        loss = -np.log(chosen) * known
    return from_sums(np.stack([loss, known], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


ACCURACY = Metric("accuracy", "accuracy", True, 0.0, 1.0, _accuracy, of_decisions=True)
BALANCED_ACCURACY = Metric(
    "balanced_accuracy", "balanced accuracy", True, 0.0, 1.0, _balanced_accuracy, of_decisions=True, of_classes=True
)
F1_MACRO = Metric("f1_macro", "macro F1", True, 0.0, 1.0, _f1_macro, of_decisions=True, of_classes=True)
QUADRATIC_KAPPA = Metric("quadratic_kappa", "quadratic kappa", True, -1.0, 1.0, _quadratic_kappa, of_decisions=True)
CLASS_DISTANCE = Metric("class_distance", "mean class distance", False, 0.0, float("inf"), _class_distance, of_decisions=True)
LOG_LOSS = Metric("log_loss", "log loss", False, 0.0, float("inf"), _log_loss)
