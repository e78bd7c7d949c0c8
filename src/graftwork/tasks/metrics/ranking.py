"""Metrics of a ranking by score: area under the ROC curve and average precision, under many row weightings at once.

The scores are sorted once; equal scores form one group. Weighted counts of positives and negatives per group then give every
resample's curve by a cumulative sum.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.weighted_sums import divide, mean_of_columns

__all__ = ["AVERAGE_PRECISION", "MEAN_AVERAGE_PRECISION", "ROC_AUC"]


class _Ranking:
    """Rows of one binary question, best score first, in groups of equal score."""

    def __init__(self, target: Array, score: Array) -> None:
        known = np.flatnonzero(target >= 0)  # leaves out -1 and NaN
        order = known[np.argsort(-score[known], kind="stable")]
        self.order = order
        self.positive = (target[order] == 1).astype(np.float64)
        ranked = score[order]
        # Without rows there is no first group; np.r_ would make one up.
        self.starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else np.zeros(0, np.int64)

    def group_counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of positives and of negatives in each group, ``[B, G]`` both."""
        if not len(self.order):
            empty = np.zeros((len(weights), 1))
            return empty, empty
        weighted = np.take(weights, self.order, axis=1)
        if len(self.starts) == len(self.order):  # without ties each row is its group
            positive = weighted * self.positive
            return positive, weighted - positive
        positive = np.add.reduceat(weighted * self.positive, self.starts, axis=1)
        # Negatives as the rest: one product with the weights is spared.
        return positive, np.add.reduceat(weighted, self.starts, axis=1) - positive


def _area(ranking: _Ranking, weights: Floats) -> Floats:
    positive, negative = ranking.group_counts(weights)
    total = negative.sum(axis=1)
    below = total[:, None] - np.cumsum(negative, axis=1) + 0.5 * negative  # negatives ranked lower; ties count half
    return divide((positive * below).sum(axis=1), positive.sum(axis=1) * total)


def _precision(ranking: _Ranking, weights: Floats) -> Floats:
    positive, negative = ranking.group_counts(weights)
    found = np.cumsum(positive, axis=1)
    seen = found + np.cumsum(negative, axis=1)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return divide((positive * precision).sum(axis=1), positive.sum(axis=1))


def _roc_auc(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Chance that a positive row is ranked above a negative one; NaN unless both occur."""
    ranking = _Ranking(target, prediction)
    return lambda weights: _area(ranking, weights)


def _average_precision(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Precision averaged over the recall steps of a binary task; NaN without a positive."""
    ranking = _Ranking(target, prediction)
    return lambda weights: _precision(ranking, weights)


def _mean_average_precision(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Average precision, mean over the labels that have a positive row."""
    rankings = [_Ranking(target[:, label], prediction[:, label]) for label in range(spec.size)]
    return lambda weights: mean_of_columns(np.stack([_precision(ranking, weights) for ranking in rankings], axis=1))


ROC_AUC = Metric("roc_auc", "ROC AUC", True, 0.0, 1.0, _roc_auc, of_order=True)
AVERAGE_PRECISION = Metric("average_precision", "average precision", True, 0.0, 1.0, _average_precision, of_order=True)
MEAN_AVERAGE_PRECISION = Metric(
    "mean_average_precision", "mean average precision", True, 0.0, 1.0, _mean_average_precision, of_order=True
)
