r"""Dynamic weight average: tasks whose loss falls slowly get more weight.

Paper: Liu, Johns and Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, https://arxiv.org/abs/1803.10704,
equation 7:

.. math:: w_k(t) = \frac{L_k(t-1)}{L_k(t-2)}, \qquad \lambda_k(t) = \frac{K \exp(w_k(t) / T)}{\sum_i \exp(w_i(t) / T)}

with the mean loss :math:`L_k(t)` of epoch :math:`t`; all :math:`w_k = 1` in the first two epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import WeightBalancer

__all__ = ["DynamicWeightAverage"]


class DynamicWeightAverage(WeightBalancer):
    """Weights from the ratio of the last two epochs' mean losses; they sum to the number of tasks.

    A task whose ratio is not defined (no labels in an epoch, a loss of 0 or below) counts as one that stands still: ratio 1.

    Args:
        temperature: ``T`` in the paper, above 0; the larger, the more equal the weights.

    Raises:
        ConfigError: If ``temperature`` is not above 0.
    """

    def __init__(self, temperature: float = 2.0) -> None:
        if not temperature > 0:
            raise ConfigError(f"`temperature` must be above 0; got {temperature!r}.")
        self.temperature = float(temperature)
        self._epochs: list[list[float]] = []
        self._weights: Tensor | None = None

    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted sum and the weights ``[T]``, constant within an epoch."""
        if self._weights is None or self._weights.shape != losses.shape:
            # The first two epochs have no ratio yet; equal ratios give equal weights.
            ratios = losses.detach().new_ones(len(losses))
            if len(self._epochs) == 2 and len(self._epochs[0]) == len(losses):
                ratios = losses.detach().new_tensor([_ratio(now, before) for before, now in zip(*self._epochs, strict=True)])
            self._weights = torch.softmax(ratios / self.temperature, dim=0) * len(losses)
        weights = self._weights.to(losses)
        return losses @ weights, weights

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Remember the epoch's mean losses ``[T]`` and compute new weights at the next step."""
        self._epochs = [*self._epochs[-1:], mean_losses.detach().tolist()]
        # Computed at the next step, where dtype and device of the losses are known.
        self._weights = None

    def reset(self) -> None:
        """Forget all epochs."""
        self._epochs, self._weights = [], None

    def state_dict(self) -> dict[str, Any]:
        """Return the last two epochs' mean losses."""
        # NaN is no JSON value: epochs without labels are stored as null.
        return {"epochs": [_without_nan(epoch) for epoch in self._epochs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self._epochs = [[math.nan if value is None else float(value) for value in epoch] for epoch in state["epochs"]]
        self._weights = None


def _ratio(now: float, before: float) -> float:
    usable = math.isfinite(now) and math.isfinite(before) and now > 0 and before > 0
    return now / before if usable else 1.0


def _without_nan(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
