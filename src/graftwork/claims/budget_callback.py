"""Counts real optimiser steps and samples for the budget guard, and sums the training loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from graftwork.interfaces.callback import Callback, LoopView

__all__ = ["BudgetCallback"]


class BudgetCallback(Callback):
    """Charges an arm with every step that a training loop makes and with the rows of its batch.

    Args:
        count: Called with a counter's name and an amount, usually :meth:`graftwork.claims.arm_context.ArmContext.count`.
        add_loss: Called with a sum of losses and the number of steps behind it, at the end of every slice of training.
    """

    def __init__(self, count: Callable[[str, int], None], add_loss: Callable[[float, int], None] | None = None) -> None:
        self._count, self._add_loss = count, add_loss
        self._losses: Tensor | None = None
        self._loss_steps = 0
        self._spent = {"steps": 0, "samples": 0}

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        """Count one step and the rows of its batch; the loss is summed without waiting for its value."""
        # Still a tensor: asking for its value in every step would wait for the device.
        self._losses = losses.mean() if self._losses is None else self._losses + losses.mean()
        self._loss_steps += 1
        self._add("steps", 1)
        self._add("samples", len(batch))

    def on_end(self, loop: LoopView) -> None:
        """Hand over what the slice added to the training loss."""
        if self._add_loss is not None and self._losses is not None:
            self._add_loss(float(self._losses), self._loss_steps)
        self._losses, self._loss_steps = None, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted so far."""
        return dict(self._spent)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Charge the arm with what was spent before the checkpoint: a resumed arm costs as much as an undisturbed one."""
        for counter in self._spent:
            # A checkpoint may be loaded into a callback that has counted already; the difference makes both totals right.
            self._add(counter, int(state[counter]) - self._spent[counter])

    def _add(self, counter: str, amount: int) -> None:
        self._spent[counter] += amount
        self._count(counter, amount)
