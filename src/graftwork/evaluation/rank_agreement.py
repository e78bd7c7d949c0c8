"""How well scores order sources as their true results do: weighted Kendall tau, with an interval over targets and pools.

Paper: Vigna, "A Weighted Correlation Index for Rankings with Ties", WWW 2015, https://arxiv.org/abs/1404.3325; disagreements about
the best sources weigh most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["Agreement", "rank_agreement", "weighted_tau"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean tau over targets."""

    tau: float
    low: float
    high: float
    """Bounds, 95 %, over other targets and other pools."""
    by_target: tuple[float, ...]


def weighted_tau(scores: Floats, truth: Floats) -> float:
    """Return the weighted Kendall tau of two rankings of the same sources, in [-1, 1]; 0 where either does not order them.

    Args:
        scores: ``[S]``, higher is better.
        truth: ``[S]``, likewise.

    Raises:
        DataError: If there are fewer than two sources, or a number is not finite.
    """
    from scipy.stats import weightedtau

    if len(scores) < 2 or len(scores) != len(truth) or not (np.isfinite(scores).all() and np.isfinite(truth).all()):
        raise DataError("A rank correlation needs finite scores and results of the same two or more sources.")
    if np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(weightedtau(scores, truth).statistic)


def rank_agreement(scores: Floats, truth: Floats, *, draws: int = 500, seed: int = 0) -> Agreement:
    """Return how well scores order the sources, on average over targets.

    Every draw takes targets with replacement, and of the sources those that a draw with replacement names at least once (at least
    three).

    Args:
        scores: ``[targets, sources]``.
        truth: ``[targets, sources]``.
        draws: Number of draws.
        seed: Of the draws.

    Raises:
        DataError: If the shapes differ, there are fewer than three sources, or a number is not finite.
    """
    if scores.shape != truth.shape or scores.ndim != 2 or scores.shape[1] < 3 or not len(scores):
        raise DataError(f"Scores and results must be [targets, 3 or more sources]; got {scores.shape} and {truth.shape}.")
    by_target = tuple(weighted_tau(a, b) for a, b in zip(scores, truth, strict=True))
    random = np.random.default_rng(seed)
    count, sources = scores.shape
    found = []
    for _ in range(draws):
        pool = np.unique(random.integers(sources, size=sources))
        while len(pool) < 3:
            pool = np.unique(random.integers(sources, size=sources))
        chosen, times = np.unique(random.integers(count, size=count), return_counts=True)
        taus = [weighted_tau(scores[index, pool], truth[index, pool]) for index in chosen]
        found.append(float(np.average(taus, weights=times)))
    low, high = np.quantile(found, [0.025, 0.975])
    tau = float(np.mean(by_target))
    return Agreement(tau, float(min(low, tau)), float(max(high, tau)), by_target)
