"""The order in which rows are dealt into steps: a pure function of seed and step. Every row is dealt once before any is dealt
again.

With several data sets a mixing policy sets how often each is met: ``proportional`` to its rows, ``uniform``, or a temperature
``T`` with shares ``n^(1/T)`` (as in mT5, Xue et al. 2021, https://arxiv.org/abs/2010.11934): 1 is proportional, large is
uniform. ``balanced`` is uniform within every step, and ``round-robin`` takes each step from one data set, all in turn. Pure
NumPy.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.data.mixing import mixing_probabilities, parse_mixing

__all__ = ["Dealer", "Mixing"]

Mixing = Literal["proportional", "uniform", "balanced", "round-robin"] | float


class Dealer:
    """Deals some rows, so many a step.

    Args:
        rows: Rows to deal, int64 ``[N]``, at least one.
        domain: Data set of each of them, int64 ``[N]``.
        size: Rows a step; at most ``N`` are dealt.
        seed: Seed of the order.
        mixing: How often each data set is met (see the module).

    Raises:
        ConfigError: If ``mixing`` is unknown.
    """

    def __init__(
        self, rows: NDArray[np.int64], domain: NDArray[np.int64], size: int, seed: int, mixing: Mixing = "proportional"
    ) -> None:
        self.rows = rows
        self.size = min(size, len(rows))
        # Rounded up: the last rows of an epoch count as a step.
        self.steps_per_epoch = -(-len(rows) // self.size)
        self._seed = seed
        self._mixing = parse_mixing(mixing)
        self._pools: list[NDArray[np.int64]] = [rows[domain == index] for index in np.unique(domain)]
        # An epoch is filled to whole steps, so it can deal a few rows more than there are.
        self._quota = _whole_shares(
            self.steps_per_epoch * self.size, mixing_probabilities([len(pool) for pool in self._pools], mixing)
        )
        self._epoch = -1
        self._order: NDArray[np.int64] = rows[:0]

    def rows_of(self, step: int) -> NDArray[np.int64]:
        """Return the rows of ``step``, int64 ``[size]`` (fewer if ``round-robin`` meets a data set with fewer)."""
        if self._mixing == "round-robin":
            # A small data set has fewer rows a step and not the same ones twice.
            turn, index = divmod(step, len(self._pools))
            size = min(self.size, len(self._pools[index]))
            return self._dealt(index, turn * size, (turn + 1) * size)
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._deal(epoch), epoch
        return self._order[index * self.size : (index + 1) * self.size]

    def _deal(self, epoch: int) -> NDArray[np.int64]:
        parts = [self._dealt(index, epoch * quota, (epoch + 1) * quota) for index, quota in enumerate(self._quota)]
        if len(parts) == 1:
            return parts[0]
        if self._mixing == "balanced":  # each data set at even distances, so that any run of rows holds its share of all
            places = np.concatenate([(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
            return np.concatenate(parts)[np.argsort(places, kind="stable")]
        # Seeded by the epoch, so that any epoch can be dealt without those before it.
        return np.random.default_rng([self._seed, len(parts), epoch]).permutation(np.concatenate(parts))

    def _dealt(self, index: int, first: int, last: int) -> NDArray[np.int64]:
        """Return draws ``first`` to ``last`` of one data set, which is shuffled anew whenever all its rows were dealt."""
        pool = self._pools[index]
        # The rounds that the draws touch; each has an order of its own.
        rounds = range(first // len(pool), -(-last // len(pool)))
        dealt = [pool[np.random.default_rng([self._seed, index, number]).permutation(len(pool))] for number in rounds]
        offset = first - rounds.start * len(pool)
        return np.concatenate(dealt)[offset : offset + last - first] if dealt else pool[:0]


def _whole_shares(total: int, shares: NDArray[np.float64]) -> list[int]:
    """Split ``total`` by largest remainders; every data set with a share is met at least once where ``total`` allows."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    # Largest remainder first: those are the most negative of floor - exact.
    for index in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[index] += 1
    for index in np.flatnonzero((counts == 0) & (shares > 0)):
        if counts.max() > 1:
            # From the largest, which misses one least.
            counts[counts.argmax()] -= 1
            counts[index] += 1
    return [int(count) for count in counts]
