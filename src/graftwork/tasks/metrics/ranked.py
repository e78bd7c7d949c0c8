"""Metrics of rankings within queries: NDCG and the share of pairs in the right order.

Targets are ``[N, 2]``, relevance (at least 0) and query number, NaN where missing; predictions are scores ``[N]``, higher first.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.pair_counts import PairCounter
from graftwork.math.weighted_sums import divide, from_sums

__all__ = ["NDCG", "NDCG_10", "PAIR_ACCURACY"]


def _known(target: Array) -> Array:
    return np.asarray(~np.isnan(target).any(axis=1))


def _gain(relevance: Floats, score: Floats, query: Array, cut: int) -> Floats:
    """Return the discounted gain of each query: relevance over ``log2(1 + place)``, summed over the first ``cut`` places.

    Rows of equal score share the mean discount of their places.
    """
    # The last key sorts first: by query, then best score first.
    order = np.lexsort((-score, query))
    query, score, relevance = query[order], score[order], relevance[order]
    starts = np.flatnonzero(np.r_[True, query[1:] != query[:-1]])
    sizes = np.diff(np.r_[starts, len(query)])
    # Counted from 0 within each query.
    place = np.arange(len(query)) - np.repeat(starts, sizes)
    discount = np.where(place < cut, 1.0 / np.log2(2.0 + place), 0.0)
    tied = np.flatnonzero(np.r_[True, (query[1:] != query[:-1]) | (score[1:] != score[:-1])])
    lengths = np.diff(np.r_[tied, len(query)])
    shared = np.repeat(np.add.reduceat(discount, tied) / lengths, lengths)
    return np.add.reduceat(relevance * shared, starts)


def _ndcg(target: Array, prediction: Array, cut: int) -> Evaluator:
    rows = np.flatnonzero(_known(target))
    columns = np.zeros((len(target), 2))
    if len(rows):
        relevance, score = target[rows, 0].astype(np.float64), prediction[rows].astype(np.float64)
        # Query numbers become 0, 1 ... so that they can index the arrays of queries below.
        _, query, sizes = np.unique(target[rows, 1], return_inverse=True, return_counts=True)
        best = _gain(relevance, relevance, query, cut)
        value = divide(_gain(relevance, score, query, cut), best)
        counts = (best > 0) & (sizes > 1)
        shares = np.where(counts, 1.0 / sizes, 0.0)
        # Each of the n rows of a query carries 1/n of its value and of its weight: a query counts once.
        columns[rows, 0], columns[rows, 1] = np.where(counts, np.nan_to_num(value) * shares, 0.0)[query], shares[query]
    return from_sums(columns, lambda sums: divide(sums[:, 0], sums[:, 1]))


def _ndcg_all(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Normalised discounted cumulative gain, mean over queries: 1 if every query is in the order of relevance.

    The gain is the relevance itself (Jarvelin and Kekalainen 2002), not a power of two. Queries of one row, or without a
    relevant row, do not
    count. A query weighs what its rows weigh on average: resample whole queries.
    """
    return _ndcg(target, prediction, len(target))


def _ndcg_10(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """NDCG over the first ten places."""
    return _ndcg(target, prediction, 10)


def _pair_accuracy(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of pairs of one query with different relevance that the scores order alike; equal scores count half."""
    rows = np.flatnonzero(_known(target))
    query = np.unique(target[rows, 1], return_inverse=True)[1].reshape(-1)
    counter = PairCounter(target[rows, 0], prediction[rows], group=query)

    def evaluate(weights: Floats) -> Floats:
        alike, pairs = counter(weights[:, rows])
        return divide(alike, pairs)

    return evaluate


NDCG = Metric("ndcg", "NDCG", True, 0.0, 1.0, _ndcg_all)
NDCG_10 = Metric("ndcg_10", "NDCG of the first 10", True, 0.0, 1.0, _ndcg_10)
PAIR_ACCURACY = Metric("pair_accuracy", "pairs in the right order", True, 0.0, 1.0, _pair_accuracy)
