"""A module in evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and its children into evaluation mode for the time of the block, then each into the mode that it had.

    ``train(before)`` would give all of them the mode of the outermost one: a frozen trunk in a model that learns would end in
    training mode.

    Args:
        module: Any module; an error inside of the block leaves it as it was, too.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
