"""The shared representation of a batch, looked at from outside: for shapes and for measurements."""

from __future__ import annotations

import torch
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.interfaces.shared_model import SharedModel

__all__ = ["representation_of"]


@torch.no_grad()
def representation_of(model: SharedModel, batch: Batch) -> Tensor | None:
    """Return what all tasks share of a batch: ``[B, C]``, ``[B, N, C]`` or ``[B, C, H, W]``; None if the model shares no
    representation.

    Computed in evaluation mode without gradients; modes and statistics of normalisation layers are as before.

    Args:
        model: The model.
        batch: On the model's device.
    """
    # Each module's own mode: parts of a model may be in evaluation mode while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        found = model.encode(batch.inputs)
        model.pop_auxiliary_loss()  # of this pass; training must not count it
    finally:
        for module, mode in modes:
            module.training = mode
    return found if isinstance(found, Tensor) else None
