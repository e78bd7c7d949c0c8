"""A stage with steps of its own, together with the stages before it as one learner: the base of such stages."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from graftwork.core.errors import ConfigError
from graftwork.core.records import Ledger
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.training.stages import Earlier

__all__ = ["StagedLearner", "sum_of_costs"]


class StagedLearner(Learner):
    """Trains the stages before it to the end of their part, then itself. Steps, progress, checkpoints and costs cover both.

    Subclasses say what their own part does; until it begins, they answer with :attr:`before`.

    Args:
        context: That of the whole plan.
        earlier: Builds the learner of the stages before.
        own_steps: Steps out of ``context.max_steps`` that this stage takes.

    Raises:
        ConfigError: If no step is left for the stages before.
    """

    def __init__(self, context: LearnerContext, earlier: Earlier, own_steps: int) -> None:
        super().__init__(context)
        self._first = context.max_steps - own_steps
        if self._first < 1:
            raise ConfigError(
                f"Plan {context.plan.name!r}: {own_steps} of {context.max_steps} steps for its last stage leave none for those "
                "before."
            )
        self.before = earlier(replace(context, max_steps=self._first))
        self.own_step = 0

    @property
    def step(self) -> int:
        """Number of finished steps of all stages."""
        return self.before.step + self.own_step

    @property
    def still_improving(self) -> bool:
        """Whether the stages before are: what this stage adds has a length of its own."""
        return self.before.still_improving

    def train(self, until: int, *, on_progress: Callable[[int], None] | None = None) -> None:
        """Train the stages one after the other until ``step == until``."""
        # Once this stage has begun, the weights before it are final.
        if not self.own_step:
            self.before.train(min(until, self._first), on_progress=on_progress)
        if until > self._first:
            done = self.before.step  # may be less than its part, where more did not help
            shown = None if on_progress is None else lambda step: on_progress(done + step)
            self.train_own(until - self._first, shown)

    @abstractmethod
    def train_own(self, until: int, on_progress: Callable[[int], None] | None) -> None:
        """Train this stage until ``own_step == until``; see :meth:`.Learner.train`."""

    @abstractmethod
    def save_own(self, folder: Path) -> None:
        """Write the state of this stage, its step included, atomically."""

    @abstractmethod
    def load_own(self, folder: Path) -> None:
        """Restore :meth:`save_own`'s state."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint of all stages."""
        # A kill between the two is harmless: only one of the parts moves at a time.
        self.before.save(folder / "before")
        self.save_own(folder / "own")

    def load(self, folder: Path) -> None:
        """Restore a checkpoint of all stages."""
        self.before.load(folder / "before")
        self.load_own(folder / "own")


def sum_of_costs(first: Ledger, *others: Ledger) -> Ledger:
    """Return what several trainings cost together: steps, samples and seconds add up, of memory the highest counts, and what the
    model stores and takes to predict is that of ``first``."""
    parts = (first, *others)
    return replace(
        first,
        parameters_trained=sum(part.parameters_trained for part in parts),
        steps=sum(part.steps for part in parts),
        samples=sum(part.samples for part in parts),
        wall_seconds=sum(part.wall_seconds for part in parts),
        cpu_seconds=sum(part.cpu_seconds for part in parts),
        peak_rss_bytes=max(part.peak_rss_bytes for part in parts),
        activation_bytes=max(part.activation_bytes for part in parts),
    )
