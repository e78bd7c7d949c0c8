"""Metrics of survival: Harrell's concordance index and the integrated Brier score of Graf et al. (1999), both for censored times.

Targets are ``[N, 2]``, time and event (1, or 0 if censored), NaN where missing; predictions ``[N, K]``, the probability of
surviving the end of each interval, which ``spec.details["edges"]`` holds.
"""

from __future__ import annotations

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.math.pair_counts import PairCounter
from graftwork.math.weighted_sums import divide, from_sums

__all__ = ["CONCORDANCE", "INTEGRATED_BRIER", "edges_of", "event_free", "mean_time"]


def edges_of(spec: TaskSpec) -> Floats:
    """Return the ends of the intervals, ``[K]``, in the user's units; 1 to K for a task that has seen no data."""
    # Edges that no data has fixed: unit intervals let a task of this kind be built and tried.
    return np.asarray(spec.details.get("edges") or range(1, spec.size + 1), dtype=np.float64)


def mean_time(spec: TaskSpec, survival: Array) -> Floats:
    """Return the mean time up to the last edge, ``[N]``: the area under the survival curve, which starts at 1 and is linear in
    between."""
    edges = np.concatenate([[0.0], edges_of(spec)])
    curve = np.concatenate([np.ones((len(survival), 1)), np.asarray(survival, dtype=np.float64)], axis=1)
    # Trapezoids: mean of both ends times the width of the interval.
    return np.asarray(0.5 * (curve[:, 1:] + curve[:, :-1]) @ np.diff(edges))


def _known(target: Array) -> Array:
    return np.asarray(~np.isnan(target).any(axis=1))


def _concordance(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Share of pairs whose order is known in which the row with the earlier event has the shorter predicted mean time; ties
    count half.

    A pair's order is known if the earlier of both times is an event. Of an event and a censored row at the same time the event
    came first; two events at the same time are no pair.
    """
    rows = np.flatnonzero(_known(target))
    time, event = target[rows, 0].astype(np.float64), target[rows, 1] == 1
    # Two steps a time, the event's before the censored one's: at equal times the event came first.
    order = np.unique(time, return_inverse=True)[1] * 2 + ~event
    # Only an event can be the earlier row of a pair: of a censored row nobody knows when its event came.
    counter = PairCounter(order, mean_time(spec, prediction[rows]), counts=event)

    def evaluate(weights: Floats) -> Floats:
        alike, pairs = counter(weights[:, rows])
        return divide(alike, pairs)

    return evaluate


def event_free(time: Array, happened: Array) -> tuple[Floats, Floats]:
    """Return the Kaplan-Meier estimate: times of ``happened``, and the probability that it has not happened by then,
    right-continuous."""
    times = np.unique(time[happened])
    # Rows whose time is not before t; those that leave at t are still at risk then.
    at_risk = len(time) - np.searchsorted(np.sort(time), times)
    count = np.searchsorted(np.sort(time[happened]), times, side="right") - np.searchsorted(np.sort(time[happened]), times)
    # S(t) is the product over event times up to t of (1 - events / at risk).
    return times.astype(np.float64), np.asarray(np.cumprod(1.0 - count / np.maximum(at_risk, 1)), dtype=np.float64)


def _integrated_brier(spec: TaskSpec, target: Array, prediction: Array) -> Evaluator:
    """Squared error of the survival probability, weighted for censoring, mean over the time between the first and the last edge.

    Weights are one over the Kaplan-Meier probability of not being censored: just before the row's event, or at the edge for rows
    that are still there. It is estimated once on these rows, not for every resample. Edges at and after the last time do not
    count.
    """
    known, edges = _known(target), edges_of(spec)
    time = np.where(known, target[:, 0], 0.0).astype(np.float64)
    event = known & (target[:, 1] == 1)
    # From the last known time on no row is left to compare with.
    used = np.flatnonzero(edges < time[known].max(initial=-np.inf))
    steps, free = event_free(time[known], ~event[known])
    free = np.concatenate([[1.0], free])
    # side left: the probability just before the row's own time.
    before_own = free[np.searchsorted(steps, time)]
    # side right: the probability at the edge, its own step included.
    at_edge = free[np.searchsorted(steps, edges[used], side="right")]
    # Both [N, U]. Rows censored before the edge are in neither: their fate is not known, the weights stand in for them.
    gone = event[:, None] & (time[:, None] <= edges[used])
    there = known[:, None] & (time[:, None] > edges[used])
    guess = prediction[:, used].astype(np.float64)
    errors = np.where(gone, divide(guess**2, np.broadcast_to(before_own[:, None], guess.shape)), 0.0)
    errors = errors + np.where(there, divide((1.0 - guess) ** 2, np.broadcast_to(at_edge, guess.shape)), 0.0)
    widths = np.diff(edges[used])

    def combine(sums: Floats) -> Floats:
        scores = divide(sums[:, :-1], sums[:, -1:])
        if not len(used):
            return np.full(len(sums), np.nan)
        if len(used) == 1:
            return scores[:, 0]
        return np.asarray(0.5 * (scores[:, 1:] + scores[:, :-1]) @ widths / widths.sum())

    return from_sums(np.concatenate([errors, known[:, None]], axis=1), combine)


CONCORDANCE = Metric("concordance", "concordance index", True, 0.0, 1.0, _concordance, of_order=True)
INTEGRATED_BRIER = Metric("integrated_brier", "integrated Brier score", False, 0.0, float("inf"), _integrated_brier)
