"""A learner that makes a table of its suite and trains boosted trees on it: everything but the table is that of the trees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from graftwork.core.records import Ledger
from graftwork.domains.tabular.lightgbm import LightGBMLearner
from graftwork.interfaces.learner import Learner

__all__ = ["BehindTableLearner"]


class BehindTableLearner(Learner):
    """Trains, stores and counts as the trees do; what makes the table follows from the suite and is in no checkpoint."""

    _inner: LightGBMLearner
    """Set by the constructor."""

    @property
    def ignores_horizon(self) -> bool:
        """Rounds do not depend on how many follow."""
        return self._inner.ignores_horizon

    @property
    def still_improving(self) -> bool:
        """Whether a target gained within the last few of its rounds."""
        return self._inner.still_improving

    @property
    def step(self) -> int:
        """Number of finished boosting rounds."""
        return self._inner.step

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Boost until ``step == until`` or no target gains any more."""
        self._inner.train(until, on_progress=on_progress)

    def save(self, folder: Path) -> None:
        """Write the boosters."""
        self._inner.save(folder)

    def load(self, folder: Path) -> None:
        """Restore :meth:`save`'s checkpoint.

        Raises:
            CheckpointError: If it is damaged, of another version, or belongs to another run.
        """
        self._inner.load(folder)

    def ledger(self) -> Ledger:
        """Return the costs so far: those of the trees."""
        return self._inner.ledger()

    def own_costs(self) -> dict[str, Ledger]:
        """Return the numbers of each task's trees."""
        return self._inner.own_costs()
