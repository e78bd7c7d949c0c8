"""Greedy choice of a set: the source that adds most, again and again.

Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing submodular set functions", Mathematical Programming 14,
1978: of a monotone submodular value it reaches at least 63 % of the best set's.
"""

from __future__ import annotations

from graftwork.core.errors import ConfigError
from graftwork.interfaces.set_selector import SetSelector, SetValue

__all__ = ["GreedySets"]


class GreedySets(SetSelector):
    """Adds the source whose set has the highest value; of equal ones the first. Values need not be submodular."""

    def select(self, value: SetValue, num_sources: int, size: int) -> tuple[int, ...]:
        """Return the numbers of the members, in the order in which they were taken.

        Raises:
            ConfigError: If the size is out of range.
        """
        if not 1 <= size <= num_sources:
            raise ConfigError(f"A set has from 1 to {num_sources} of the sources; got the size {size}.")
        chosen: list[int] = []
        for _ in range(size):
            left = [index for index in range(num_sources) if index not in chosen]
            chosen.append(max(left, key=lambda index: (value([*chosen, index]), -index)))
        return tuple(chosen)
