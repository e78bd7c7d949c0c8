"""Weighted counts of ordered pairs of rows, under many row weightings at once. NumPy.

For each pair (i, j) of one group with ``level[i] < level[j]`` and ``counts[i]``: is ``score[i]`` below ``score[j]``? Pairs
number N squared. But each pair of different levels parts at exactly one bit of the level numbers, so a cumulative sum per bit
over rows sorted by
score answers for all of them: N log N, with index arrays that do not depend on the weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PairCounter"]

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


class PairCounter:
    """Counts pairs of rows whose levels differ, and those of them that the scores order alike.

    Args:
        level: What orders the rows truly, ``[N]``; equal levels make no pair.
        score: What is judged, ``[N]``; equal scores count half.
        counts: Rows that may be the lower one of a pair, bool ``[N]``; None takes all.
        group: Only rows of one group make pairs, int64 ``[N]``; None takes one group.

    Example:
        >>> counter = PairCounter(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.9, 0.5]))
        >>> alike, pairs = counter(np.ones((1, 3)))
        >>> alike.tolist(), pairs.tolist()
        ([2.0], [3.0])
    """

    def __init__(
        self,
        level: NDArray[Any],
        score: NDArray[Any],
        *,
        counts: NDArray[np.bool_] | None = None,
        group: Index | None = None,
    ) -> None:
        ranks = np.unique(level, return_inverse=True)[1].reshape(-1).astype(np.int64)
        places = np.unique(score, return_inverse=True)[1].reshape(-1).astype(np.int64)
        groups = np.zeros(len(ranks), np.int64) if group is None else np.unique(group, return_inverse=True)[1].reshape(-1)
        lower = np.ones(len(ranks), bool) if counts is None else counts
        width = int(places.max(initial=0)) + 1
        num_levels = int(ranks.max(initial=0)) + 1
        self._bits: list[tuple[Index, Index, Index, Index, Index, Index]] = []
        for bit in range(int(num_levels - 1).bit_length()):
            # Rows that agree in all higher bits share a node; those with this bit set are above the others of their node.
            node = groups * ((num_levels >> (bit + 1)) + 1) + (ranks >> (bit + 1))
            is_high = (ranks >> bit & 1).astype(bool)
            high = np.flatnonzero(is_high)
            high = high[np.argsort(node[high] * width + places[high], kind="stable")]
            low = np.flatnonzero(~is_high & lower)
            # One integer orders by node first, then by score: searchsorted then finds places inside a node.
            keys, start = node[high] * width + places[high], node[low] * width
            self._bits.append(
                (
                    high,
                    low,
                    np.searchsorted(keys, start),
                    np.searchsorted(keys, start + places[low]),
                    np.searchsorted(keys, start + places[low], side="right"),
                    np.searchsorted(keys, start + width),
                )
            )

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weights of pairs that the scores order alike, and of all pairs, ``[B]`` each.

        Args:
            weights: Row weights ``[B, N]``; a pair weighs the product of its rows.
        """
        alike, pairs = np.zeros((2, len(weights)))
        for high, low, start, below, upto, end in self._bits:
            # A leading zero, so that differences of `running` are sums of half-open ranges.
            running = np.zeros((len(weights), len(high) + 1))
            np.cumsum(weights[:, high], axis=1, out=running[:, 1:])
            own, last = weights[:, low], running[:, end]
            # The mean of both sides counts pairs of equal scores half.
            alike += (own * (last - 0.5 * (running[:, below] + running[:, upto]))).sum(axis=1)
            pairs += (own * (last - running[:, start])).sum(axis=1)
        return alike, pairs
