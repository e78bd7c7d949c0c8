"""Metrics of predicted numbers: RMSE, MAE, R squared, each the plain mean over the task's values (scikit-learn's
``uniform_average``)."""

from __future__ import annotations

import math

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.weighted_sums import divide, from_sums, mean_of_columns

__all__ = ["MAE", "R2", "RMSE"]


def _known_errors(target: Array, prediction: Array) -> tuple[Floats, Floats, Floats]:
    """Return per row and value: sum of known targets' errors squared, of absolute errors, and counts; positions are summed
    away."""
    known = ~np.isnan(target)
    error = np.where(known, prediction.astype(np.float64) - np.where(known, target, 0.0), 0.0)
    rows, size = target.shape[:2]
    flat = (rows, size, math.prod(target.shape[2:]))  # not -1, which is undefined without a row
    return (
        np.square(error).reshape(flat).sum(axis=2),
        np.abs(error).reshape(flat).sum(axis=2),
        known.reshape(flat).sum(axis=2).astype(np.float64),
    )


def _rmse(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Root mean squared error in the user's units."""
    squared, _, known = _known_errors(target, prediction)
    size = squared.shape[1]
    return from_sums(
        np.concatenate([squared, known], axis=1),
        lambda sums: mean_of_columns(np.sqrt(divide(sums[:, :size], sums[:, size:]))),
    )


def _mae(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Mean absolute error in the user's units."""
    _, absolute, known = _known_errors(target, prediction)
    size = absolute.shape[1]
    return from_sums(
        np.concatenate([absolute, known], axis=1),
        lambda sums: mean_of_columns(divide(sums[:, :size], sums[:, size:])),
    )


def _r2(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of the target's variance that the prediction explains; NaN where the target does not vary."""
    squared, _, known = _known_errors(target, prediction)
    size = squared.shape[1]
    truth = np.where(np.isnan(target), 0.0, target).astype(np.float64)
    total = known.sum(axis=0)
    # Shifting by the mean keeps the difference of large sums accurate for targets far from zero (years, say).
    truth = np.where(known > 0, truth - np.divide(truth.sum(axis=0), total, out=np.zeros(size), where=total > 0), 0.0)

    def combine(sums: Floats) -> Floats:
        residual, count, first, second = np.split(sums, 4, axis=1)
        spread = second - divide(first**2, count)
        # Relative to the sum of squares, since the difference of two large sums never comes out as exactly 0.
        return mean_of_columns(1.0 - divide(residual, np.where(spread > 1e-12 * np.maximum(second, 1e-300), spread, 0.0)))

    return from_sums(np.concatenate([squared, known, truth, truth**2], axis=1), combine)


RMSE = Metric("rmse", "RMSE", False, 0.0, float("inf"), _rmse)
MAE = Metric("mae", "MAE", False, 0.0, float("inf"), _mae)
R2 = Metric("r2", "R²", True, -float("inf"), 1.0, _r2)
