"""Metrics of dense tasks: one prediction per pixel. Rows (pictures) stay the unit of resampling: pixels of a picture are not independent."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metric_types import Array, Evaluator, Floats, divide, from_sums, mean_of_columns

__all__ = ["mean_angle", "miou", "pixel_accuracy", "within_11"]

CLOSE_ANGLE = 11.25
"""Degrees; the usual first threshold for surface normals."""


def _decided(prediction: Array) -> Array:
    return prediction.argmax(axis=1) if prediction.ndim == 4 else prediction


def miou(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Intersection over union of all pixels, mean over the classes that occur in target or prediction."""
    guess, known = _decided(prediction), target >= 0
    both, union = np.zeros((2, len(target), spec.size))
    for index in range(spec.size):
        truth, guessed = (target == index) & known, (guess == index) & known
        both[:, index] = (truth & guessed).sum(axis=(1, 2))
        union[:, index] = (truth | guessed).sum(axis=(1, 2))
    return from_sums(
        np.concatenate([both, union], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, : spec.size], sums[:, spec.size :])),
    )


def pixel_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of labelled pixels whose class is right."""
    known = target >= 0
    right = ((_decided(prediction) == target) & known).sum(axis=(1, 2))
    return from_sums(np.stack([right, known.sum(axis=(1, 2))], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def _angles(target: Array, prediction: Array) -> tuple[Floats, Array]:
    """Return angles in degrees, ``[N, H, W]``, and which pixels count: those whose true normal is known and not zero."""
    truth, guess = target.astype(np.float64), prediction.astype(np.float64)
    length = np.linalg.norm(truth, axis=1)
    known = ~np.isnan(length) & (length > 0)
    norms = length * np.linalg.norm(guess, axis=1)
    cosine = np.divide((truth * guess).sum(axis=1), norms, out=np.zeros_like(norms), where=known & (norms > 0))
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), known


def mean_angle(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean angle in degrees between predicted and true direction."""
    angles, known = _angles(target, prediction)
    columns = np.stack([np.where(known, angles, 0.0).sum(axis=(1, 2)), known.sum(axis=(1, 2))], axis=1)
    return from_sums(columns, lambda sums: divide(sums[:, 0], sums[:, 1]))


def within_11(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of pixels whose direction is within 11.25 degrees of the truth."""
    angles, known = _angles(target, prediction)
    close = ((angles < CLOSE_ANGLE) & known).sum(axis=(1, 2))
    return from_sums(np.stack([close, known.sum(axis=(1, 2))], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))
