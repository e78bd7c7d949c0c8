"""How a running job is told to stop, and how it says where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["JobControl", "PauseTraining", "StopMode"]

StopMode = Literal["keep", "finish"]
"""``keep``: write a checkpoint and end (Ctrl-C); ``finish``: stop training, judge what was learned so far (the deadline)."""


class PauseTraining(Exception):  # noqa: N818  (a signal, not an error)
    """Raised from a progress callback to get the learner back between two steps."""


@dataclass(slots=True)
class JobControl:
    """Handed to a job; another thread may set :attr:`stop` at any time."""

    report: Callable[[dict[str, Any]], None] = lambda message: None
    """Where progress messages go."""
    stop: StopMode | None = None
    checkpoint_seconds: float = 20.0
    _reported: float = field(default=0.0)
    _saved: float = field(default_factory=time.monotonic)

    def begin_slice(self) -> None:
        """Start the time to the next checkpoint; called when training goes on after one."""
        self._saved = time.monotonic()

    def progress(self, step: int) -> None:
        """Report the step at most four times a second.

        Raises:
            PauseTraining: If the job must stop, or a checkpoint is due.
        """
        now = time.monotonic()
        if now - self._reported > 0.25:
            self._reported = now
            self.report({"type": "progress", "step": step})
        # A due checkpoint also leaves the training loop: between two steps the learner is whole.
        if self.stop is not None or now - self._saved > self.checkpoint_seconds:
            raise PauseTraining
