"""Counts real optimiser steps and samples for the budget guard, sums the training loss, and keeps its curve."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from graftwork.claims.convergence import Points, thinned
from graftwork.interfaces.callback import Callback, LoopView

__all__ = ["BudgetCallback"]

_MOST_MARKS = 48


class BudgetCallback(Callback):
    """Charges an arm with every step that a training loop makes and with the rows of its batch.

    Args:
        count: Called with a counter's name and an amount, usually :meth:`graftwork.claims.arm_context.ArmContext.count`.
        add_loss: Called with a sum of losses and the number of steps behind it, at the end of every slice of training.
        record: Called with the curve of the training loss up to now, at the end of every slice.
    """

    def __init__(
        self,
        count: Callable[[str, int], None],
        add_loss: Callable[[float, int], None] | None = None,
        record: Callable[[Points], None] | None = None,
    ) -> None:
        self._count, self._add_loss, self._record = count, add_loss, record
        self._marks: list[tuple[int, int, Tensor]] = []
        self._stride = 1
        self._curve: list[tuple[int, float]] = []
        self._losses: Tensor | None = None
        self._loss_steps = 0
        self._spent = {"steps": 0, "samples": 0}

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        """Count one step and the rows of its batch; the loss is summed without waiting for its value."""
        # Still a tensor: asking for its value in every step would wait for the device.
        self._losses = losses.mean() if self._losses is None else self._losses + losses.mean()
        self._loss_steps += 1
        self._add("steps", 1)
        self._mark()
        self._add("samples", len(batch))

    def on_end(self, loop: LoopView) -> None:
        """Hand over what the slice added to the training loss."""
        if self._add_loss is not None and self._losses is not None:
            self._add_loss(float(self._losses), self._loss_steps)
        self._extend_curve()
        self._losses, self._loss_steps = None, 0

    def _mark(self) -> None:
        # The running sum at some steps: the loss between two of them is their difference, so that a curve costs no extra operation.
        if self._losses is not None and self._loss_steps % self._stride == 0:
            self._marks.append((self._spent["steps"], self._loss_steps, self._losses))
            if len(self._marks) >= _MOST_MARKS:
                self._marks, self._stride = self._marks[1::2], 2 * self._stride

    def _extend_curve(self) -> None:
        if self._losses is not None and (not self._marks or self._marks[-1][1] < self._loss_steps):
            self._marks.append((self._spent["steps"], self._loss_steps, self._losses))
        count, total = 0, 0.0
        for place, steps, running in self._marks:
            self._curve.append((place, (float(running) - total) / (steps - count)))
            count, total = steps, float(running)
        self._marks, self._stride = [], 1
        self._curve = thinned(self._curve, _MOST_MARKS)
        if self._record is not None and self._curve:
            self._record(self._curve)

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
