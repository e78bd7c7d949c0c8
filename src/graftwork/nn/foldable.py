"""Layers that stand around a plain layer while it is tuned, and can be written into it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

__all__ = ["FoldableLayer", "fold_layers"]


class FoldableLayer(nn.Module, ABC):
    """A plain layer, ``base``, and what was added to it."""

    base: nn.Module

    @abstractmethod
    def folded(self) -> nn.Module:
        """Return the plain layer with what was added written into its weight, in place; unfold by putting the old weight back."""


def fold_layers(model: nn.Module) -> int:
    """Replace every foldable layer inside ``model`` by its plain layer, in place, and return how many there were.

    For copies that are deployed: they compute the same with the original structure and speed. Needs no tuner; to go back and
    forth use the tuner's ``fold`` and ``unfold``.
    """
    found = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, FoldableLayer)]
    for name, layer in found:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.folded())
    return len(found)
