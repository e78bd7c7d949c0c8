"""Watches a validation score while an arm trains, without touching what it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graftwork.claims.convergence import Points
from graftwork.interfaces.callback import Callback, LoopView

__all__ = ["WatchCallback"]


class WatchCallback(Callback):
    """Calls a score at evenly spaced steps and hands over the curve; training goes on bit for bit as without it.

    Args:
        score: Returns the validation score of the model as it is now. It runs without gradients, and the modes of the model's
            modules and torch's random state are put back after it.
        steps: Steps of the whole training.
        record: Called with the curve so far after every score.
        points: How many scores there are.
    """

    def __init__(self, score: Callable[[], float], steps: int, record: Callable[[Points], None], *, points: int = 8) -> None:
        self._score, self._record = score, record
        self._due = sorted({max(1, round(steps * place / points)) for place in range(1, points + 1)})
        self._points: list[tuple[int, float]] = []

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        """Score the model if it is time to."""
        if loop.step not in self._due:
            return
        modes = [(module, module.training) for module in loop.model.modules()]
        devices = sorted({parameter.device.index or 0 for parameter in loop.model.parameters() if parameter.is_cuda})
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            self._points.append((loop.step, float(self._score())))
        for module, mode in modes:
            # Not `train()`, which would set the modules below as well.
            module.training = mode
        self._record(self._points)
