"""Callbacks: told what the loop does, never asked what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graftwork.core.batch import Batch

if TYPE_CHECKING:
    from graftwork.training.loop import Trainer

__all__ = ["Callback", "LossHistory"]


class Callback:
    """Base of all callbacks; override what is needed. A callback must not change model, optimiser or random state."""

    def on_start(self, trainer: Trainer) -> None:
        """Be told that a slice of training begins."""

    def on_step(self, trainer: Trainer, batch: Batch, losses: Tensor) -> None:
        """Be told that a step was made.

        Args:
            trainer: The loop; ``trainer.step`` counts this step already.
            batch: What was learned from.
            losses: Detached losses per task before the step, shape ``[T]``; reading a value with ``.item()`` costs time.
        """

    def on_end(self, trainer: Trainer) -> None:
        """Be told that a slice of training ended, also if it ended by an error."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class LossHistory(Callback):
    """Mean training loss per task over stretches of ``every`` steps.

    Args:
        every: Steps a stretch, at least 1.
    """

    def __init__(self, every: int = 50) -> None:
        if every < 1:
            raise ValueError(f"`every` must be at least 1; got {every!r}.")
        self.every = every
        self._sum: Tensor | None = None
        self._count = 0
        self._steps: list[int] = []
        self._means: list[list[float]] = []

    def on_step(self, trainer: Trainer, batch: Batch, losses: Tensor) -> None:
        """Add the losses; close the stretch if it is full."""
        self._sum = losses.clone() if self._sum is None else self._sum + losses
        self._count += 1
        if self._count == self.every:
            self._steps.append(trainer.step)
            self._means.append((self._sum / self._count).tolist())
            self._sum, self._count = None, 0

    def records(self) -> list[tuple[int, list[float]]]:
        """Return ``(step, mean loss per task)`` for every full stretch."""
        return list(zip(self._steps, self._means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen so far."""
        state: dict[str, Any] = {"count": self._count, "steps": list(self._steps), "means": [list(row) for row in self._means]}
        return state if self._sum is None else {**state, "sum": self._sum.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._sum = torch.clone(state["sum"]) if "sum" in state else None
        self._count = int(state["count"])
        self._steps, self._means = [int(step) for step in state["steps"]], [list(row) for row in state["means"]]
