"""What training changes in a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["copy_into", "learned_state"]


def learned_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: parameters that require gradients, and all persistent buffers, by name."""
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if name not in frozen}


def copy_into(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    """Overwrite parameters, one by one; call it without gradients."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
