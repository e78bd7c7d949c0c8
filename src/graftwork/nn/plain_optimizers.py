"""Torch's optimisers without what they do for ``torch.compile``.

Making one of torch's optimisers, and its first step, import the compiler: 1,300 modules and as much time as torch itself, in every
process that trains. Nothing is compiled here, so the same methods run without their decorators; the numbers are the same.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any, TypeVar, cast

import torch

__all__ = ["plain_optimizer"]

OptimizerT = TypeVar("OptimizerT", bound=torch.optim.Optimizer)
_DECORATED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@functools.cache
def plain_optimizer(kind: type[OptimizerT]) -> type[OptimizerT]:
    """Return a class of the optimiser that imports no compiler.

    Args:
        kind: A class of ``torch.optim``. Its option ``differentiable`` has no effect.
    """
    methods: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in _DECORATED}
    # One of the decorators that are taken off turns gradients off.
    methods["step"] = torch.no_grad()(inspect.unwrap(kind.step))
    return cast(type[OptimizerT], type(kind.__name__, (kind,), {"__module__": __name__, **methods}))
