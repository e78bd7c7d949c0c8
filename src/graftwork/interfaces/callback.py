"""Callbacks: called after each step of a loop; they watch, and never steer."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

__all__ = ["Callback", "LoopView"]


class LoopView(Protocol):
    """What a callback sees of the loop that calls it: :class:`~graftwork.training.loop.Loop`."""

    @property
    def step(self) -> int:
        """Number of finished steps."""

    @property
    def model(self) -> nn.Module:
        """The model in training, with its present weights."""


class Callback:
    """Base of all callbacks; override what is needed. A callback must not change model, optimiser or random state."""

    def on_start(self, loop: LoopView) -> None:
        """Called when a slice of training begins."""

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        """Called after each step.

        Args:
            loop: The loop; ``loop.step`` counts this step already.
            batch: What was learned from: a :class:`~graftwork.core.batch.Batch` where tasks are trained, otherwise whatever the
                source gives.
            losses: Detached losses before the step, shape ``[L]`` (one a task where tasks are trained); reading a value with
                ``.item()`` costs time.
        """

    def on_end(self, loop: LoopView) -> None:
        """Called when a slice of training ended, also if it ended by an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
