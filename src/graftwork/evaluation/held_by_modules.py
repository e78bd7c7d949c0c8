"""How much of what a training step holds for the backward pass each of some modules holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from graftwork.evaluation.memory_meter import MemoryMeter

__all__ = ["held_by_modules"]


def held_by_modules(model: nn.Module, names: Sequence[str], inputs: Any) -> dict[str, int]:
    """Return the bytes that each of the named modules adds to what a forward pass in training mode holds.

    What an earlier module holds already (its output, which is the next one's input) counts there alone.

    Args:
        model: As it is trained; it is copied, so that running statistics stay.
        names: Modules that run once each, none inside another.
        inputs: The model's one argument.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
        >>> held_by_modules(model, ["1"], torch.ones(5, 2))
        {'1': 60}
    """
    twin = copy.deepcopy(model).train()
    found: dict[str, int] = {}
    handles = []
    with MemoryMeter([*twin.parameters(), *twin.buffers()]) as meter:
        for name in names:
            module = twin.get_submodule(name)

            # Nothing is let go in a forward pass, so the highest number so far is the present one.
            def begin(*_: Any, name: str = name) -> None:
                found[name] = -meter.held_bytes

            def end(*_: Any, name: str = name) -> None:
                found[name] += meter.held_bytes

            handles += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
        twin(inputs)
    for handle in handles:
        handle.remove()
    return found
