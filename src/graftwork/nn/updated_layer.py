"""A frozen layer whose whole weight gets an update in the form of a delta: low rank in one of two reshapes, or CP factors; as it is,
or decomposed into direction and magnitude.

Papers: Hu et al., "LoRA", ICLR 2022, https://arxiv.org/abs/2106.09685, and its released ``loralib`` for convolutions; Liu et al.,
"DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, https://arxiv.org/abs/2402.09353; the CP form and the convolutional
versions of DoRA are those of "LoRA-based methods on Unet for transfer learning in Subarachnoid Hematoma Segmentation", 2025,
https://arxiv.org/abs/2508.01772.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.delta_parts import CP, Additive, Decomposed, LowRank, Part, rescaled_filters
from graftwork.nn.foldable import FoldableLayer

__all__ = ["UpdateForm", "UpdatedLayer", "call_with_weight", "can_update"]

UpdateForm = Literal["cp", "lora-c", "conv-lora"]
"""For a weight ``[out, in, height, width]`` (a linear layer has none of the last two) and rank ``r``:

- ``cp``: ``r`` products of one vector a dimension, ``r * (out + in + height + width)`` numbers;
- ``lora-c``: the product of ``[out, r]`` and ``[r, in * height * width]``, as peft has it for convolutions;
- ``conv-lora``: the product of ``[out * height, r * width]`` and ``[r * width, in * width]``, reshaped, as loralib has it.
"""


def can_update(layer: nn.Module) -> bool:
    """Return whether a layer has a weight that an update fits: Linear, or Conv2d with any groups."""
    return isinstance(layer, nn.Linear | nn.Conv2d)


def call_with_weight(layer: nn.Module, weight: Tensor, inputs: Tensor) -> Tensor:
    """Return what a layer computes with another weight; stride, groups, padding and subclasses stay what they are.

    Args:
        layer: A Linear or Conv2d layer, or a subclass of one.
        weight: In the shape of its own.
        inputs: Its inputs.
    """
    if type(layer).forward is nn.Linear.forward:
        bias: Any = layer.bias
        return F.linear(inputs, weight, bias)
    if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward:
        return layer._conv_forward(inputs, weight, layer.bias)
    # Layers with a forward of their own (timm's Conv2dSame). It cannot be traced, so it is left for these.
    return functional_call(layer, {"weight": weight}, (inputs,))  # type: ignore[no-any-return]


class UpdatedLayer(FoldableLayer):
    """Computes what ``base`` would with the weight ``W + scaling * D``, or with ``m * (W + scaling * D) / ||W + scaling * D||``.

    One factor of ``D`` begins at zero, the others do not; ``m`` begins as the norms of ``W``. So a new layer computes what its base
    does. The norm is taken for each output filter over all other dimensions and is a constant in the backward pass, as in DoRA.

    Args:
        base: A Linear or Conv2d layer; its parameters stop requiring gradients.
        form: How ``D`` is made of factors.
        rank: Rank ``r``, at least 1; it may be above the layer's dimensions.
        scaling: Factor on ``D``.
        decompose: Whether the weight is decomposed into direction and magnitude.

    Raises:
        ConfigError: If the layer is of another kind, the form is unknown, or the rank is below 1.
    """

    def __init__(self, base: nn.Module, *, form: UpdateForm, rank: int, scaling: float, decompose: bool = False) -> None:
        super().__init__()
        if form not in get_args(UpdateForm):
            raise ConfigError(f"`form` must be one of {', '.join(get_args(UpdateForm))}; got {form!r}.")
        if rank < 1:
            raise ConfigError(f"The rank must be at least 1; got {rank!r}.")
        if not can_update(base):
            raise ConfigError(f"An update of this kind exists for Linear and Conv2d layers; got {type(base).__name__}.")
        self.base = base.requires_grad_(False)
        self.form, self.rank, self.scaling = form, rank, scaling
        weight: Any = base.weight
        self.factors = nn.ParameterList(nn.Parameter(item.to(weight)) for item in _new_factors(form, weight.shape, rank))
        self.magnitude: nn.Parameter | None = None
        if decompose:
            self.magnitude = nn.Parameter(weight.detach().flatten(1).norm(dim=1))

    def direction(self) -> Additive:
        """Return ``scaling * D`` as a delta's part, made of the factors themselves."""
        return self._of(list(self.factors))

    def part(self) -> Part:
        """Return the difference from the base weight as a delta's part, with copies of the tensors."""
        direction = self._of([factor.detach().clone() for factor in self.factors])
        return direction if self.magnitude is None else Decomposed(direction, self.magnitude.detach().clone())

    def _of(self, factors: Sequence[Tensor]) -> Additive:
        if self.form == "cp":
            return CP(tuple(factors), self.scaling)
        down, up = factors
        return LowRank(down, up, self.scaling)

    @property
    def weight(self) -> Tensor:
        """The weight that it computes with, in the shape of the base weight."""
        base: Any = self.base.weight
        moved: Tensor = base + self.direction().expand(base.shape)
        return moved if self.magnitude is None else rescaled_filters(moved, self.magnitude)

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        bias: Any = self.base.bias
        return bias  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the base layer computes with :attr:`weight`."""
        return call_with_weight(self.base, self.weight, inputs)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with :attr:`weight`, in place; unfold by putting the old weight back."""
        weight: Any = self.base.weight
        weight.data = self.weight.detach().clone()
        return self.base


def _new_factors(form: UpdateForm, shape: torch.Size, rank: int) -> list[Tensor]:
    """Return the factors of an update that is zero: exactly one of them is."""
    out, wide, *kernel = shape
    if form == "cp":
        # Columns of norm 1 on average: the gradient of the first factor does not depend on the sizes of the others.
        return [torch.zeros(out, rank), *(torch.randn(size, rank) / math.sqrt(size) for size in (wide, *kernel))]
    if form == "lora-c":
        down, up = torch.empty(rank, wide, *kernel), torch.zeros(out, rank, *[1] * len(kernel))
    else:
        height, width = kernel or (1, 1)
        down, up = torch.empty(rank * width, wide * width), torch.zeros(out * height, rank * width)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # what torch draws layers with
    return [down, up]
