"""Modules that are put around modules of a base and learn there: adapters and prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.foldable import WrappingLayer

__all__ = ["AddingGraft", "Graft", "load_own_tensors", "own_tensors"]


class Graft(WrappingLayer, ABC):
    """Stands around ``base``. The constructor takes the base and keywords of JSON values, so that a file can say how it is built.

    A new one changes no output, prompts excepted: tokens that are read cannot be without effect.
    """

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Keywords that build another one of this shape."""

    @classmethod
    def scaled(cls, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        """Return tensors with which it adds ``factor`` times as much.

        Raises:
            ConfigError: If its effect is not linear in what it adds.
        """
        raise ConfigError(f"What a {cls.__name__} does cannot be multiplied by a number ({factor}): its effect is not a sum.")


class AddingGraft(Graft):
    """Changes what the base returns and nothing of what it is given: each row of the result depends on that row of the base's
    output alone."""

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the base returns, its (first) tensor changed."""
        output = self.base(*arguments, **keywords)
        if isinstance(output, tuple):
            return (self.adapted(output[0]), *output[1:])
        return self.adapted(output)

    @abstractmethod
    def adapted(self, states: Tensor) -> Tensor:
        """Return what becomes of the base's output, in its shape."""


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name, without those of the base that it stands around."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("base.")}


def load_own_tensors(module: nn.Module, tensors: Mapping[str, Tensor], place: str) -> None:
    """Set what :func:`own_tensors` returns.

    Args:
        module: The module.
        tensors: All of its own tensors.
        place: Where it stands, for messages.

    Raises:
        ConfigError: If names or shapes do not fit.
    """
    own = own_tensors(module)
    wrong = [f"{name!r} is missing" for name in own.keys() - tensors.keys()]
    wrong += [f"{name!r} is unknown" for name in tensors.keys() - own.keys()]
    wrong += [
        f"{name!r} is {list(tensors[name].shape)} in the delta, {list(own[name].shape)} here"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    if wrong:
        raise ConfigError(
            f"The {type(module).__name__} at {place or 'the whole model'} does not fit: {'; '.join(sorted(wrong)[:5])}."
        )
    for name, tensor in own.items():
        tensor.data.copy_(tensors[name])
