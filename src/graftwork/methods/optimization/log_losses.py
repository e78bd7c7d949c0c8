"""Sum of the logarithms of the task losses: tasks count alike, whatever the scale of their loss.

The gradient of a task is divided by its loss, so that a factor on a loss changes nothing. It is called scale-invariant (SI) in
Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, https://arxiv.org/abs/2202.01017 (section 5), and is the
logarithm of the geometric mean of Chennupati et al., "MultiNet++", 2019, https://arxiv.org/abs/1904.08325.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graftwork.interfaces.balancer import WeightBalancer

__all__ = ["LogLosses", "floored"]

_FLOOR = 1e-8


class LogLosses(WeightBalancer):
    """``sum_t log L_t`` over the tasks with labels in the batch, whose loss is not exactly 0; losses below 1e-8 count as that."""

    accumulates = False
    parallel = False

    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the logarithms and the weights ``1 / L_t`` behind its gradient, ``[T]``; 0 for a task without labels."""
        safe = floored(losses)
        present = losses.detach() != 0
        return torch.where(present, safe.log(), torch.zeros_like(safe)).sum(), present / safe.detach()


def floored(losses: Tensor) -> Tensor:
    """Return losses that can be divided by: at least 1e-8, ``[T]``, with their gradients where they are above."""
    return losses.clamp(min=_FLOOR)
