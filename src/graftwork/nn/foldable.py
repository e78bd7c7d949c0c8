"""Layers that stand around a plain layer while it is tuned, and the plain model that is inside of them.

A wrapper holds what it stands around as ``base``. Names of a model without its wrappers are called *plain names*: deltas and
fingerprints go by them, so that a base is the same base whatever is attached to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["FoldableLayer", "WrappingLayer", "fold_layers", "give_own_parameters", "plain_module", "plain_state", "put_module"]


class WrappingLayer(nn.Module):
    """Stands in the place of a module, which it holds as ``base``."""

    base: nn.Module


class FoldableLayer(WrappingLayer, ABC):
    """A plain layer, ``base``, and what was added to it."""

    @abstractmethod
    def folded(self) -> nn.Module:
        """Return the plain layer with what was added written into its weight, in place; unfold by putting the old weight back."""


def fold_layers(model: nn.Module) -> int:
    """Replace every foldable layer inside ``model`` by its plain layer, in place, and return how many there were.

    For copies that are deployed: they compute the same with the original structure and speed. Needs no tuner; to go back and
    forth use the tuner's ``fold`` and ``unfold``. A layer that stands at several places is folded once, and counts once.
    """
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, FoldableLayer)]
    for name, layer in found:
        give_own_parameters(layer.base)
        put_module(model, name, layer.folded())
    return len(found)


def give_own_parameters(layer: nn.Module) -> None:
    """Give a layer parameters of its own with the values that it has: what is folded into weights that it shares with another
    layer (tied weights) would change that one too. Nothing is copied."""
    for name, parameter in list(layer._parameters.items()):
        if parameter is not None:
            setattr(layer, name, nn.Parameter(parameter.data, requires_grad=parameter.requires_grad))


def put_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module into the place of the one called ``name``, its name as it stands among ``model.named_modules()``.

    Where the present module stands at other places of the model besides, the new one takes those as well: one layer stays one.
    """
    present = model.get_submodule(name)
    places = [(parent, child) for parent in model.modules() for child, held in parent._modules.items() if held is present]
    for parent, child in places:
        setattr(parent, child, module)


def plain_module(model: nn.Module, name: str) -> str:
    """Return the present name of a module that has the plain name ``name``: that of its outermost wrapper.

    Raises:
        ConfigError: If there is no such module.
    """
    found, current = "", model
    for part in name.split("."):
        while isinstance(current, WrappingLayer):
            current, found = current.base, f"{found}.base" if found else "base"
        child = current._modules.get(part)
        if child is None:
            raise ConfigError(
                f"{type(model).__name__} has no module {name!r}: {part!r} is missing. It was made for another model."
            )
        current, found = child, f"{found}.{part}" if found else part
    return found


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by their plain names, not copied; those of wrappers are left out."""
    return dict(_plain_tensors(model, ""))


def _plain_tensors(module: nn.Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    while isinstance(module, WrappingLayer):
        module = module.base
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield prefix + name, parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers_set:
            yield prefix + name, buffer
    for name, child in module._modules.items():
        if child is not None and not getattr(child, "is_side_network", False):
            yield from _plain_tensors(child, f"{prefix}{name}.")
