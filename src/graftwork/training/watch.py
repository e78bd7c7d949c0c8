"""Noticing divergence without waiting for a value in every step: running sums that are looked at every now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graftwork.core.errors import TrainingDivergedError

__all__ = ["DivergenceWatch"]


class DivergenceWatch:
    """Counts, per task, the steps with a finite loss, and sums gradient norms.

    Args:
        tasks: Names of the tasks.
        device: Where losses live.
    """

    def __init__(self, tasks: Sequence[str], device: torch.device) -> None:
        self.tasks = tuple(tasks)
        self._sum = torch.zeros((), device=device)
        self._finite_steps = torch.zeros(len(self.tasks), device=device)
        self._steps = 0

    def add_norm(self, norm: Tensor) -> None:
        """Note a gradient norm, a scalar."""
        self._sum += norm

    def add_losses(self, losses: Tensor) -> None:
        """Note the losses of a step, ``[T]``."""
        self._finite_steps += torch.isfinite(losses)
        self._steps += 1

    def check(self, step: int, advice: str, weights: Sequence[Tensor] = ()) -> None:
        """Look at the sums and start them anew.

        Args:
            step: Number of finished steps, for the message.
            advice: What to do, for the message.
            weights: Parameters to look at as well.

        Raises:
            TrainingDivergedError: If something was NaN or infinite.
        """
        watched = self._sum
        if weights:
            # The norm of a tensor is not finite if one of its entries is not.
            watched = watched + torch.stack(torch._foreach_norm([weight.detach() for weight in weights])).sum()
        finite = self._finite_steps.tolist()
        if min(finite) < self._steps or not bool(torch.isfinite(watched)):
            # One step later everything is NaN: the culprit is the task that was finite for the fewest steps.
            broken = [task for task, count in zip(self.tasks, finite, strict=True) if count == min(finite)]
            where = f"the loss of {', '.join(broken)}" if min(finite) < self._steps else "a gradient or weight"
            raise TrainingDivergedError(f"Training diverged: {where} became NaN or infinite by step {step}. {advice}")
        self._sum.zero_()
        self._finite_steps.zero_()
        self._steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the sums; the tensors are the live ones."""
        return {"sum": self._sum, "finite_steps": self._finite_steps, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._sum.copy_(state["sum"])
        self._finite_steps.copy_(state["finite_steps"])
        self._steps = int(state["steps"])
