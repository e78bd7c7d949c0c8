"""What training changes in a model, and what it begins from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["begin_from", "copy_into", "learned_state"]


@torch.no_grad()
def begin_from(model: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Overwrite some tensors of a model by name, before it is trained.

    Raises:
        ConfigError: If the model has no tensor of this name and shape.
    """
    state = model.state_dict()
    for name, tensor in start.items():
        if name not in state or state[name].shape != tensor.shape:
            found = f"it is {list(state[name].shape)} there" if name in state else "there is none"
            raise ConfigError(
                f"The model cannot begin from tensor {name!r} of shape {list(tensor.shape)}: {found}. Its sharing operator "
                "depends on which tasks there are; choose one whose shared part does not."
            )
        # `state_dict` shares memory with the model, so this writes into the model.
        state[name].copy_(tensor)


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: parameters that require gradients, and all persistent buffers, by name."""
    # Tied parameters have a name at each of their places, and `state_dict` lists all of them.
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in frozen}


def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Overwrite parameters, one by one; call it without gradients."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
