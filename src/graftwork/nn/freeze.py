"""Modules that stay in evaluation mode whatever ``train()`` says."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

__all__ = ["fix_mode", "is_batch_norm", "is_mode_fixed", "release_mode"]


class _FixedMode:
    """Mixed in before a module's own class; ``train`` recurses through it, so that all children stay in evaluation mode too."""

    def train(self, mode: bool = True) -> Any:
        del mode
        return super().train(False)  # type: ignore[misc]


# Cached, so that a class has one fixed subclass and copies of a module share it.
@functools.cache
def _fixed_class(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (_FixedMode, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__, "released_class": cls})


def fix_mode(module: nn.Module) -> None:
    """Put ``module`` and its children into evaluation mode for good.

    The module's class is exchanged for a subclass that differs in ``train`` alone: unlike a function put onto the instance, this
    survives ``copy.deepcopy`` (averaged copies of a model are made that way), and names and weights stay as they are.
    """
    if not is_mode_fixed(module):
        module.__class__ = _fixed_class(type(module))  # type: ignore[arg-type] # classes are hashable, mypy reads Module.__hash__
    module.eval()


def release_mode(module: nn.Module) -> None:
    """Undo :func:`fix_mode`; the module stays in evaluation mode until the next ``train()``."""
    if is_mode_fixed(module):
        module.__class__ = type(module).released_class  # type: ignore[attr-defined]


def is_mode_fixed(module: nn.Module) -> bool:
    """Return whether :func:`fix_mode` was called on this module."""
    return isinstance(module, _FixedMode)


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether the module keeps running statistics of batches."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)
