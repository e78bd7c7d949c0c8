"""A frozen layer whose outputs or inputs are multiplied by learned factors, one for each feature."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.delta_parts import Part, Rescaled
from graftwork.nn.foldable import FoldableLayer

__all__ = ["RescaledLayer", "Side", "can_rescale"]

Side = Literal["outputs", "inputs"]


def can_rescale(layer: nn.Module, side: Side = "outputs") -> bool:
    """Return whether a layer takes factors: Linear, or Conv2d; for inputs only without groups."""
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and (side == "outputs" or layer.groups == 1))


class RescaledLayer(FoldableLayer):
    """Computes ``scale * base(x)``, or ``base(scale * x)``; scales begin at 1, so that a new layer computes what its base does.

    Args:
        base: A Linear or Conv2d layer; its parameters stop requiring gradients.
        side: ``"outputs"``, bias included, or ``"inputs"``.

    Raises:
        ConfigError: If the layer is of another kind, has groups and should have its inputs scaled, or ``side`` is unknown.
    """

    def __init__(self, base: nn.Module, side: Side = "outputs") -> None:
        super().__init__()
        if side not in get_args(Side):
            raise ConfigError(f"`side` must be one of {', '.join(get_args(Side))}; got {side!r}.")
        if not can_rescale(base, side):
            raise ConfigError(
                f"Factors exist for Linear and Conv2d layers, for inputs only of those without groups; got {type(base).__name__}."
            )
        self.base, self.side = base.requires_grad_(False), side
        weight: Any = base.weight
        self.scale = nn.Parameter(torch.ones(weight.shape[self.axis], dtype=weight.dtype, device=weight.device))

    @property
    def axis(self) -> int:
        """Dimension of the base weight that the scale runs along."""
        return 0 if self.side == "outputs" else 1

    def _along_features(self) -> Tensor:
        # Maps have their features in front of height and width.
        return self.scale[:, None, None] if isinstance(self.base, nn.Conv2d) else self.scale

    @property
    def weight(self) -> Tensor:
        """The weight that it computes with, in the shape of the base weight."""
        weight: Any = self.base.weight
        return weight * self.scale.view([-1 if axis == self.axis else 1 for axis in range(weight.ndim)])  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """The bias that it computes with."""
        bias: Any = self.base.bias
        return bias if bias is None or self.side == "inputs" else bias * self.scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the base layer computes with :attr:`weight` and :attr:`bias`."""
        if self.side == "inputs":
            return self.base(inputs * self._along_features())  # type: ignore[no-any-return]
        return self.base(inputs) * self._along_features()  # type: ignore[no-any-return]

    def parts(self) -> dict[str, Part]:
        """Return the differences of ``weight`` and, for outputs, of ``bias``, as parts of a delta, with copies of the scale."""
        scale = self.scale.detach().clone()
        found: dict[str, Part] = {"weight": Rescaled(scale, self.axis)}
        if self.side == "outputs" and self.base.bias is not None:
            found["bias"] = Rescaled(scale.clone())
        return found

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with :attr:`weight` and :attr:`bias`, in place; unfold by putting the old tensors back."""
        base: Any = self.base
        weight, bias = self.weight, self.bias
        base.weight.data = weight.detach().clone()
        if bias is not None and self.side == "outputs":
            base.bias.data = bias.detach().clone()
        return self.base
