"""Exponential moving average of the weights that learn.

Early on the average is short (``(1 + t) / (10 + t)`` bounds the decay), so that it never remembers the random start.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage", "copy_sharing"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def copy_sharing(model: ModelT, replaced: Mapping[int, Tensor]) -> ModelT:
    """Return a copy of a model that holds no tensor of its own.

    Args:
        model: What to copy, before its first forward pass.
        replaced: Tensors by the ``id`` of the parameter or buffer whose place they take; all others are shared with ``model``.
    """
    # `deepcopy` takes whatever the memo holds for an id in place of a copy.
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        # `detach` shares the storage: the copy follows the live weights.
        value = replaced.get(id(parameter), parameter.detach())
        memo[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = replaced.get(id(buffer), buffer)
    return copy.deepcopy(model, memo)


class WeightAverage:
    """Averages the parameters of ``model`` that require gradients; one fused call a step.

    Args:
        model: The model; it must keep its parameters.
        decay: Decay, in ``[0, 1)``.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._live: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._averages: list[Tensor] = [parameter.detach().clone() for parameter in self._live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` finished steps (1 is the first)."""
        torch._foreach_lerp_(self._averages, self._live, 1.0 - min(self.decay, (1 + step) / (10 + step)))

    def view_of(self, model: ModelT) -> ModelT:
        """Return a copy of ``model`` whose learned parameters are the averages and whose other tensors are the model's own (no
        copies)."""
        replaced = {id(parameter): average for parameter, average in zip(self._live, self._averages, strict=True)}
        return copy_sharing(model, replaced)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return dict(zip(self._names, self._averages, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`, in place."""
        for name, average in zip(self._names, self._averages, strict=True):
            average.copy_(state[name])
