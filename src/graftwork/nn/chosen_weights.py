"""A layer of which only some weights learn, the same ones for good."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graftwork.core.errors import ConfigError
from graftwork.nn.foldable import FoldableLayer

__all__ = ["ChosenWeights", "draw_places"]


def draw_places(layer: nn.Conv2d | nn.Linear, per_filter: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw different places inside each filter of a layer, all equally likely.

    Returns:
        int64 ``[filters, per_filter]``: increasing places in the flat filter; a filter with fewer weights gives all of them.
    """
    filters, size = layer.weight.shape[0], layer.weight[0].numel()
    # Sorting random keys draws without replacement in all filters at once.
    order = torch.rand(filters, size, generator=generator).argsort(dim=1)
    return order[:, :per_filter].sort(dim=1).values


class ChosenWeights(FoldableLayer):
    """A frozen layer in which the weights at some places are parameters of their own.

    The other weights are no part of what an optimiser sees: neither weight decay nor momentum nor a moment of Adam can move
    them, as they could under a mask on gradients.

    Args:
        base: A Conv2d or Linear layer; its parameters stop requiring gradients.
        places: int64 ``[filters, k]``, different places in each flat filter.

    Raises:
        ConfigError: If the places do not fit the layer.
    """

    places: Tensor

    def __init__(self, base: nn.Conv2d | nn.Linear, places: Tensor) -> None:
        super().__init__()
        filters, size = base.weight.shape[0], base.weight[0].numel()
        if (
            places.ndim != 2
            or len(places) != filters
            or (places.numel() and not 0 <= int(places.min()) <= int(places.max()) < size)
        ):
            raise ConfigError(
                f"`places` must be [{filters}, k] with values from 0 to {size - 1}; got shape {list(places.shape)}"
                + (f", values from {int(places.min())} to {int(places.max())}." if places.numel() else ".")
            )
        self.base = base.requires_grad_(False)
        self.register_buffer("places", places)
        self.values = nn.Parameter(base.weight.detach().flatten(1).gather(1, places))
        """``[filters, k]``: the weights themselves, not differences."""

    @property
    def weight(self) -> Tensor:
        """The whole weight, in the base layer's shape."""
        weight: Any = self.base.weight
        return weight.flatten(1).scatter(1, self.places, self.values).view(weight.shape)  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        bias: Any = self.base.bias
        return bias  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the base layer computes with :attr:`weight`."""
        # Through the base layer's own forward: stride, padding and subclasses stay what they are.
        return functional_call(self.base, {"weight": self.weight}, (inputs,))  # type: ignore[no-any-return]

    def difference(self) -> Tensor:
        """Return by how much the chosen weights differ from the base, ``[filters, k]``."""
        weight: Any = self.base.weight
        return self.values.detach() - weight.detach().flatten(1).gather(1, self.places)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with the learned weights at their places, in place."""
        weight: Any = self.base.weight
        weight.data = self.weight.detach().clone()
        return self.base
