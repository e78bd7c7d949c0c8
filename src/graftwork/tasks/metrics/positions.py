"""Metrics of tasks over positions: one prediction per pixel, point, step or node. Rows stay the unit of resampling, because
positions of one row (pixels of a picture) are not independent. ``P`` stands for the axes of the positions."""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.weighted_sums import divide, from_sums, mean_of_columns

__all__ = ["F1", "MEAN_ANGLE", "MIOU", "ODS_F1", "PIXEL_ACCURACY", "WITHIN_11"]

CLOSE_ANGLE = 11.25
"""Degrees; the usual first threshold for surface normals."""
NUM_THRESHOLDS = 99
"""Thresholds 0.01 to 0.99, as the benchmarks of edge detection take them."""


def _axes(array: Array) -> tuple[int, ...]:
    """Return the axes of the positions of ``[N, P]``."""
    return tuple(range(1, array.ndim))


def _decided(target: Array, prediction: Array) -> Array:
    """Return the predicted class at each position, ``[N, P]``, from probabilities ``[N, size, P]`` or decided classes."""
    if prediction.ndim == target.ndim:
        return prediction
    return (prediction[:, 0] > 0.5).astype(np.int64) if prediction.shape[1] == 1 else prediction.argmax(axis=1)


def _miou(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Intersection over union of all pixels, mean over the classes that occur in target or prediction."""
    guess, known = _decided(target, prediction), target >= 0
    size = max(spec.size, 2)
    # A loop over classes holds one mask at a time; one-hot maps of all classes would be `size` times the pictures.
    both, union = np.zeros((2, len(target), size))
    for index in range(size):
        truth, guessed = (target == index) & known, (guess == index) & known
        both[:, index] = (truth & guessed).sum(axis=_axes(target))
        union[:, index] = (truth | guessed).sum(axis=_axes(target))
    return from_sums(
        np.concatenate([both, union], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, :size], sums[:, size:])),
    )


def _pixel_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of labelled pixels whose class is right."""
    known = target >= 0
    right = ((_decided(target, prediction) == target) & known).sum(axis=_axes(target))
    return from_sums(np.stack([right, known.sum(axis=_axes(target))], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


def _f1(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """F1 of class 1 over all pixels, at probability one half; NaN where class 1 is neither there nor predicted."""
    truth, guess = target == 1, (_decided(target, prediction) == 1) & (target >= 0)
    # 2 TP over (true + predicted), summed over all positions of a resample before dividing.
    columns = [(truth & guess).sum(axis=_axes(target)), truth.sum(axis=_axes(target)) + guess.sum(axis=_axes(target))]
    return from_sums(np.stack(columns, axis=1), lambda sums: divide(2 * sums[:, 0], sums[:, 1]))


def _ods_f1(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """F1 of class 1 over all pixels at the one threshold of 0.01, 0.02 ... 0.99 that is best for all pictures together.

    The "optimal dataset scale" of edge detection: class-balanced training shifts probabilities, and this does not care. Pixels
    must match exactly; there is no tolerance for an edge that lies one pixel off. (Martin et al., "Learning to Detect Natural
    Image Boundaries", 2004)
    """
    known, width = target >= 0, NUM_THRESHOLDS + 1
    # Bin b holds the pixels that are above exactly b thresholds: one table of counts serves all of them.
    level = np.searchsorted(np.arange(1, width) / width, prediction[:, 0], side="left")
    # A bin number of its own for each row and level, so that one bincount serves all rows.
    place = np.arange(len(target)).reshape(-1, *(1,) * (target.ndim - 1)) * width + level
    truth, guess = (
        # Summed from the highest level down: how many are above each threshold. The last sum is all positions, no threshold.
        np.bincount(place[chosen], minlength=len(target) * width).reshape(-1, width)[:, ::-1].cumsum(axis=1)[:, :-1]
        for chosen in (known & (target == 1), known)
    )
    total = (target == 1).sum(axis=_axes(target))[:, None]

    def combine(sums: Floats) -> Floats:
        both, guessed = sums[:, :NUM_THRESHOLDS], sums[:, NUM_THRESHOLDS:-1]
        values = divide(2 * both, guessed + sums[:, -1:])
        # A threshold at which nothing is predicted and nothing is true has no value; -1 keeps it from being the best.
        return np.where(np.isnan(values).all(axis=1), np.nan, np.where(np.isnan(values), -1.0, values).max(axis=1))

    return from_sums(np.concatenate([truth, guess, total], axis=1), combine)


def _angles(target: Array, prediction: Array) -> tuple[Floats, Array]:
    """Return angles in degrees, ``[N, P]``, and which positions count: those whose true normal is known and not zero."""
    truth, guess = target.astype(np.float64), prediction.astype(np.float64)
    length = np.linalg.norm(truth, axis=1)
    known = ~np.isnan(length) & (length > 0)
    norms = length * np.linalg.norm(guess, axis=1)
    # A prediction of length 0 has no direction; it counts as a right angle.
    cosine = np.divide((truth * guess).sum(axis=1), norms, out=np.zeros_like(norms), where=known & (norms > 0))
    # Rounding takes cosines of parallel vectors beyond 1, where arccos is NaN.
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))), known


def _mean_angle(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean angle in degrees between predicted and true direction."""
    angles, known = _angles(target, prediction)
    columns = np.stack([np.where(known, angles, 0.0).sum(axis=_axes(known)), known.sum(axis=_axes(known))], axis=1)
    return from_sums(columns, lambda sums: divide(sums[:, 0], sums[:, 1]))


def _within_11(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of pixels whose direction is within 11.25 degrees of the truth."""
    angles, known = _angles(target, prediction)
    close = ((angles < CLOSE_ANGLE) & known).sum(axis=_axes(known))
    return from_sums(np.stack([close, known.sum(axis=_axes(known))], axis=1), lambda sums: divide(sums[:, 0], sums[:, 1]))


ODS_F1 = Metric("ods_f1", "F1 at the best threshold", True, 0.0, 1.0, _ods_f1)
F1 = Metric("f1", "F1", True, 0.0, 1.0, _f1)
MIOU = Metric("miou", "mean IoU", True, 0.0, 1.0, _miou)
PIXEL_ACCURACY = Metric("pixel_accuracy", "pixel accuracy", True, 0.0, 1.0, _pixel_accuracy)
MEAN_ANGLE = Metric("mean_angle", "mean angle (degrees)", False, 0.0, 180.0, _mean_angle)
WITHIN_11 = Metric("within_11", "within 11.25 degrees", True, 0.0, 1.0, _within_11)
