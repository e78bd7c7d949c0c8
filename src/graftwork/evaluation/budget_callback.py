"""Counts real optimiser steps and samples for the budget guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.training.callbacks import Callback

if TYPE_CHECKING:
    from graftwork.training.loop import Trainer

__all__ = ["BudgetCallback"]


class BudgetCallback(Callback):
    """Charges an arm with every step that a training loop makes and with the rows of its batch.

    Args:
        count: Called with a counter's name and an amount, usually :meth:`graftwork.evaluation.arm_context.ArmContext.count`.
    """

    def __init__(self, count: Callable[[str, int], None]) -> None:
        self._count = count
        self._spent = {"steps": 0, "samples": 0}

    def on_step(self, trainer: Trainer, batch: Batch, losses: Tensor) -> None:
        """Count one step and the rows of its batch."""
        self._add("steps", 1)
        self._add("samples", len(batch))

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted so far."""
        return dict(self._spent)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Charge the arm with what was spent before the checkpoint: a resumed arm costs as much as an undisturbed one."""
        for counter in self._spent:
            self._add(counter, int(state[counter]) - self._spent[counter])

    def _add(self, counter: str, amount: int) -> None:
        self._spent[counter] += amount
        self._count(counter, amount)
