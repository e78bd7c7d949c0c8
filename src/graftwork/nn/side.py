"""A side network: reads states of a trunk at several depths and answers in its place. The trunk itself runs as it always does.

The model's class is exchanged for a subclass that differs in ``forward`` alone, as :mod:`graftwork.nn.freeze` does for modes:
names and weights of the trunk stay, and copies of the model work on their own.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.nn.taps import tapped

__all__ = ["SideNetwork", "add_side", "has_side", "remove_side"]


class SideNetwork(nn.Module, ABC):
    """From a trunk's states and features to other features of the same layout.

    The constructor takes the trunk (to look at, not to keep) and keywords of JSON values.
    """

    is_side_network = True
    depths: tuple[int, ...]
    """Blocks whose states are read; negative ones count from the end."""
    detaches: bool = True
    """Whether the trunk runs without gradients, so that nothing of it is held for the backward pass."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Keywords that build another one of this shape."""

    @abstractmethod
    def forward(self, states: Mapping[int, Tensor], features: Tensor) -> Tensor:
        """Return the features.

        Args:
            states: States after the blocks of :attr:`depths`, laid out as the trunk's ``block_shapes`` say.
            features: What the trunk answers.
        """

    def answer(self, trunk: BlockBackbone, plain: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features for a batch: run the trunk, read its states, and pass both on.

        Networks that need the inputs too (which tokens are read), or send something back into the trunk, have one of their own.

        Args:
            trunk: Where this network is attached.
            plain: The trunk's own forward pass.
            inputs: What the trunk was given.
        """
        with torch.no_grad() if self.detaches else nullcontext(), tapped(trunk, self.depths) as states:
            features = plain(inputs)
        found: Tensor = self(states, features)
        return found


class _WithSide:
    """Mixed in before a trunk's own class."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        trunk: Any = self
        side: SideNetwork = trunk.side_network
        return side.answer(trunk, super().forward, inputs)  # type: ignore[misc]


# Cached, so that a class has one such subclass and copies of a model share it.
@functools.cache
def _class_with_side(cls: type[nn.Module]) -> type[nn.Module]:
    return type(cls.__name__, (_WithSide, cls), {"__module__": cls.__module__, "__doc__": cls.__doc__, "plain_class": cls})


def add_side(trunk: nn.Module, side: SideNetwork) -> None:
    """Let a side network answer for a trunk, in place; it becomes the trunk's child ``side_network``.

    Raises:
        ConfigError: If the trunk has no blocks that can be read, has a side network already, or something else of that name.
    """
    if not isinstance(trunk, BlockBackbone):
        raise ConfigError(f"A side network reads the blocks of a trunk, and {type(trunk).__name__} has none that can be read.")
    if hasattr(trunk, "side_network"):
        raise ConfigError("This trunk has a side network (or another part called `side_network`) already. Detach it first.")
    trunk.side_network = side
    # Classes are hashable; mypy reads Module.__hash__.
    trunk.__class__ = _class_with_side(type(trunk))  # type: ignore[arg-type, assignment]


def has_side(trunk: nn.Module) -> bool:
    """Return whether a side network answers for this module."""
    return isinstance(trunk, _WithSide)


def remove_side(trunk: nn.Module) -> None:
    """Undo :func:`add_side`; classes that were exchanged since then (fixed modes) must have been exchanged back.

    Raises:
        ConfigError: If the trunk's own class is not the one that :func:`add_side` gave it.
    """
    if "plain_class" not in vars(type(trunk)):
        raise ConfigError(
            f"This {type(trunk).__name__} has no side network, or its mode was fixed since. Release its mode first."
        )
    trunk.__class__ = type(trunk).plain_class  # type: ignore[attr-defined]
    del trunk.side_network
