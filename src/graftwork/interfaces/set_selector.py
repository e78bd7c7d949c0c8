"""Sets of sources: how promising is an ensemble, and which one to take.

How the hardest systems fit:

- OSBORN adds, over the members, the distance between the source's rows and the target's and what the source's labels leave open of the
  target's, and over pairs how much members differ in their answers: a :class:`SetScorer` that gets the facts of all sources from
  :meth:`SetScorer.bind`, streams the target's rows of all sources side by side, and returns a function of any set.
- E-LEEP averages what members say of a row before it takes the logarithm: it keeps one number for each row and source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Literal

from graftwork.interfaces.scorer import ScoredRows, SourceFacts

__all__ = ["SetScorer", "SetSelector", "SetValue"]

SetValue = Callable[[Sequence[int]], float]
"""Value of a set of sources, given by their numbers; higher is better."""


class SetScorer(ABC):
    """Judges sets of sources by rows of the target; used once, like a :class:`~graftwork.interfaces.scorer.Scorer`."""

    reads: ClassVar[Literal["features", "probabilities"]] = "probabilities"
    """Which array of the blocks it needs."""
    passes: ClassVar[int] = 1
    """How often it has to see all blocks."""

    def bind(self, facts: Sequence[SourceFacts]) -> None:
        """Learn what is known of each source; called at most once, before the first block."""

    @abstractmethod
    def update(self, rows: Sequence[ScoredRows]) -> None:
        """See the same rows of the target as each source sees them, one block a source, always in one order.

        Raises:
            DataError: If a block cannot be used.
        """

    def finish_pass(self) -> None:
        """Turn the statistics of a pass into what the next one needs."""

    @abstractmethod
    def finish(self) -> SetValue:
        """Return the value of any set of the sources seen.

        Raises:
            DataError: If the rows cannot tell anything.
        """

    def run(self, blocks: Callable[[], Iterable[Sequence[ScoredRows]]]) -> SetValue:
        """Return the value of any set; this object must not have seen any rows.

        Args:
            blocks: Returns an iterator over all blocks; called once for each pass.
        """
        for number in range(self.passes):
            if number:
                self.finish_pass()
            for block in blocks():
                self.update(block)
        return self.finish()


class SetSelector(ABC):
    """Picks a set by the values of a few of them."""

    @abstractmethod
    def select(self, value: SetValue, num_sources: int, size: int) -> tuple[int, ...]:
        """Return the numbers of the members, in the order in which they were taken.

        Args:
            value: Value of any set.
            num_sources: Sources to choose from.
            size: Members of the set, from 1 to ``num_sources``.

        Raises:
            ConfigError: If the size is out of range.
        """
