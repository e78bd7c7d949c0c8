"""Batches of several data sets that hold one data set each: which one a step is about, and which of its rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["SingleTaskBatches"]


class SingleTaskBatches:
    """Every batch comes from one data set; the order of data sets is random, each is met as often as its share says.

    A pure function of the step: nothing has to be saved.

    Args:
        rows: Number of rows of each data set, by name.
        batch_sizes: Rows of a batch, by name; sizes may differ, so that updates of tasks balance.
        shares: How often each is drawn, by name, above 0; None draws by numbers of whole batches, as an epoch over all has them.
        seed: Draws everything.

    Raises:
        ConfigError: If a data set has fewer rows than a batch, or names differ.

    Example:
        >>> batches = SingleTaskBatches({"a": 40, "b": 8}, {"a": 4, "b": 2}, shares={"a": 1.0, "b": 1.0})
        >>> sorted(batches.batch(step)[0] for step in range(4))
        ['a', 'a', 'b', 'b']
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        batch_sizes: Mapping[str, int],
        *,
        shares: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        if not rows or set(rows) != set(batch_sizes) or (shares is not None and set(shares) != set(rows)):
            raise ConfigError(f"rows, batch_sizes and shares name the same data sets; got {list(rows)} and {list(batch_sizes)}.")
        short = [name for name in rows if not 1 <= batch_sizes[name] <= rows[name]]
        if short:
            raise ConfigError(
                f"The data set {short[0]!r} has {rows[short[0]]} rows, which is no batch of {batch_sizes[short[0]]}."
            )
        whole = {name: float(count // batch_sizes[name]) for name, count in rows.items()}
        asked = dict(shares) if shares is not None else whole
        if not all(value > 0 for value in asked.values()):
            raise ConfigError(f"shares must be above 0; got {asked}.")
        self.rows, self.batch_sizes, self.seed = dict(rows), dict(batch_sizes), seed
        self.names = tuple(rows)
        total = sum(asked.values())
        self.shares = tuple(asked[name] / total for name in self.names)

    def batch(self, step: int) -> tuple[str, NDArray[np.int64]]:
        """Return the data set of a step and the numbers of its rows in it."""
        before, turns = self._window(step)
        place = step % len(turns)
        number = int(turns[place])
        name = self.names[number]
        # Rows are met once before any is met again.
        drawn = int(before[number] + (turns[:place] == number).sum())
        epoch, part = divmod(drawn, self.rows[name] // self.batch_sizes[name])
        order = np.random.default_rng([self.seed, number, epoch]).permutation(self.rows[name])
        return name, order[part * self.batch_sizes[name] :][: self.batch_sizes[name]]

    def _window(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how often each data set was drawn before the window of steps that holds a step, and the turns of the window.

        Within a window the shares are kept as closely as whole numbers allow; the order is random.
        """
        window = _WINDOW * len(self.names)
        start = step // window * window
        before, after = (self._drawn(border) for border in (start, start + window))
        turns = np.repeat(np.arange(len(self.names)), after - before)
        return before, np.random.default_rng([self.seed, start, 1]).permutation(turns)

    def _drawn(self, steps: int) -> NDArray[np.int64]:
        """Return how often each data set was drawn in the first steps, whole numbers with this sum."""
        ends = np.floor(np.cumsum(self.shares) * steps + 0.5).astype(np.int64)
        return ends - np.concatenate([[0], ends[:-1]])


_WINDOW = 2
"""Turns of each data set, at equal shares, before the order is drawn anew."""
