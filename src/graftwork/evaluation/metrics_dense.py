"""Metrics of dense tasks: one prediction per pixel. Rows (pictures) stay the unit of resampling: pixels of a picture are not independent."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.evaluation.metric_types import Array, Evaluator, Floats, divide, from_sums, mean_of_columns

__all__ = ["f1", "mean_angle", "miou", "ods_f1", "pixel_accuracy", "within_11"]

CLOSE_ANGLE = 11.25
"""Degrees; the usual first threshold for surface normals."""
NUM_THRESHOLDS = 99
"""Thresholds 0.01 to 0.99, as the benchmarks of edge detection take them."""


def _decided(spec: TaskSpec, prediction: Array) -> Array:
    if spec.kind == "dense_binary":
        return (prediction[:, 0] > 0.5).astype(np.int64)
    return prediction.argmax(axis=1) if prediction.ndim == 4 else prediction


def miou(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Intersection over union of all pixels, mean over the classes that occur in target or prediction."""
    guess, known = _decided(spec, prediction), target >= 0
    size = 2 if spec.kind == "dense_binary" else spec.size
    both, union = np.zeros((2, len(target), size))
    for index in range(size):
        truth, guessed = (target == index) & known, (guess == index) & known
        both[:, index] = (truth & guessed).sum(axis=(1, 2))
        union[:, index] = (truth | guessed).sum(axis=(1, 2))
    return from_sums(
        np.concatenate([both, union], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, :size], sums[:, size:])),
    )


def pixel_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of labelled pixels whose class is right."""
    known = target >= 0
    right = ((_decided(spec, prediction) == target) & known).sum(axis=(1, 2))
    return from_sums(np.stack([right, known.sum(axis=(1, 2))], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def f1(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """F1 of class 1 over all pixels, at probability one half; NaN where class 1 is neither there nor predicted."""
    truth, guess = target == 1, (_decided(spec, prediction) == 1) & (target >= 0)
    columns = [(truth & guess).sum(axis=(1, 2)), truth.sum(axis=(1, 2)) + guess.sum(axis=(1, 2))]
    return from_sums(np.stack(columns, axis=1), lambda sums: divide(2 * sums[:, 0], sums[:, 1]))


def ods_f1(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """F1 of class 1 over all pixels at the one threshold of 0.01, 0.02 ... 0.99 that is best for all pictures together.

    The "optimal dataset scale" of edge detection: class-balanced training shifts probabilities, and this does not care. Pixels must match
    exactly; there is no tolerance for an edge that lies one pixel off. (Martin et al., "Learning to Detect Natural Image Boundaries", 2004)
    """
    known, width = target >= 0, NUM_THRESHOLDS + 1
    # Bin b holds the pixels that are above exactly b thresholds: one table of counts serves all of them.
    level = np.searchsorted(np.arange(1, width) / width, prediction[:, 0], side="left")
    place = np.arange(len(target))[:, None, None] * width + level
    truth, guess = (
        np.bincount(place[chosen], minlength=len(target) * width).reshape(-1, width)[:, ::-1].cumsum(axis=1)[:, :-1]
        for chosen in (known & (target == 1), known)
    )
    total = (target == 1).sum(axis=(1, 2))[:, None]

    def combine(sums: Floats) -> Floats:
        both, guessed = sums[:, :NUM_THRESHOLDS], sums[:, NUM_THRESHOLDS:-1]
        values = divide(2 * both, guessed + sums[:, -1:])
        return np.where(np.isnan(values).all(axis=1), np.nan, np.where(np.isnan(values), -1.0, values).max(axis=1))

    return from_sums(np.concatenate([truth, guess, total], axis=1), combine)


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
