"""Low-rank layers: a frozen linear or convolutional layer plus a learned update of low rank.

Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, https://arxiv.org/abs/2106.09685 (equation 3).
Convolutions follow the form that peft uses: a convolution to ``r`` channels with the base layer's kernel, then a 1x1 convolution.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.nn.foldable import FoldableLayer, fold_layers

__all__ = ["LowRankConv2d", "LowRankLayer", "LowRankLinear", "LowRankUpdate", "can_wrap", "fold_layers", "wrap_layer"]

_STANDARDISED = "timm.layers.std_conv"
"""Where timm has convolutions that standardise their kernels."""


class LowRankLayer(FoldableLayer):
    """A base layer ``W`` and an update ``scaling * B A``: ``y = base(x) + scaling * B(A(dropout(x)))``.

    ``B`` starts at zero, so that a new layer computes exactly what its base does.

    Args:
        base: The layer that is kept; its parameters stop requiring gradients.
        rank: Rank of the update, ``r`` in the paper. At least 1.
        scaling: Factor on the update, ``alpha / r`` in the paper.
        dropout: Probability of dropping an input of the update, in ``[0, 1)``.

    Raises:
        ValueError: If the rank or the dropout is out of range.
    """

    down: nn.Module
    """``A``: to the ``r`` channels."""
    up: nn.Module
    """``B``: back from them."""

    def __init__(self, base: nn.Module, rank: int, scaling: float, dropout: float) -> None:
        super().__init__()
        _check_rank(rank)
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"`lora_dropout` must be in [0, 1); got {dropout!r}.")
        self.base = base.requires_grad_(False)
        self.rank, self.scaling = rank, scaling
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def _start(self) -> None:
        """Draw ``A`` as a new layer of its shape would be drawn, and set ``B`` to zero."""
        weight: Any = self.base.weight
        _start_update(self.down, self.up, weight)

    @property
    def weight(self) -> Tensor:
        """The base weight with the update, for code that reads a layer's weight in place of calling it (PyTorch's attention
        does)."""
        weight: Any = self.base.weight
        return weight + self.weight_delta()

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        bias: Any = self.base.bias
        return bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the base layer returns, plus the update."""
        return self.base(inputs) + self.up(self.down(self.dropout(inputs))) * self.scaling

    @abstractmethod
    def weight_delta(self) -> Tensor:
        """Return the update as a dense difference, in the shape of the base weight."""

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with the update added to its weight, in place; unfold by putting the old weight back."""
        weight: Any = self.base.weight
        weight.data = weight.data + self.weight_delta().to(weight.dtype)
        return self.base


class LowRankLinear(LowRankLayer):
    """Low-rank update of ``nn.Linear``: ``A`` is ``[r, in]``, ``B`` is ``[out, r]``. Inputs ``[..., in]``."""

    def __init__(self, base: nn.Linear, rank: int, scaling: float, dropout: float = 0.0) -> None:
        super().__init__(base, rank, scaling, dropout)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        self._start()

    def weight_delta(self) -> Tensor:
        """Return ``scaling * B A``, shape ``[out, in]``."""
        first: Any = self.down.weight
        second: Any = self.up.weight
        return (second @ first) * self.scaling


class LowRankUpdate(nn.Module):
    """The update of a linear layer without the layer: ``scaling * B(A(x))``, for bases that several updates share.

    Starts at zero, as in :class:`LowRankLayer`; :func:`fold_layers` leaves it alone, since one base cannot hold several updates.

    Args:
        base: The layer that is updated; only its sizes, device and type are read.
        rank: Rank of the update, at least 1.
        scaling: Factor on the update.

    Raises:
        ValueError: If the rank is out of range.
    """

    def __init__(self, base: nn.Linear, rank: int, scaling: float) -> None:
        super().__init__()
        _check_rank(rank)
        self.rank, self.scaling = rank, scaling
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        _start_update(self.down, self.up, base.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the update ``[..., out]`` for inputs ``[..., in]``."""
        return self.up(self.down(inputs)) * self.scaling


class LowRankConv2d(LowRankLayer):
    """Low-rank update of ``nn.Conv2d`` without groups: ``A`` is ``[r, in, k, k]``, ``B`` is ``[out, r, 1, 1]``."""

    def __init__(self, base: nn.Conv2d, rank: int, scaling: float, dropout: float = 0.0) -> None:
        super().__init__(base, rank, scaling, dropout)
        if base.groups != 1:
            raise ValueError(f"A low-rank update needs a convolution without groups; this one has {base.groups}.")
        # The class of the base: layers such as timm's Conv2dSame pad in their own forward, and the update must see the same
        # padding.
        layer: Any = type(base)
        self.down = layer(
            base.in_channels, rank, base.kernel_size, stride=base.stride, padding=base.padding, dilation=base.dilation, bias=False
        )
        # Not all subclasses of Conv2d take `padding_mode`; the second attribute is what torch pads by when it is not "zeros".
        self.down.padding_mode = base.padding_mode  # type: ignore[assignment]
        self.down._reversed_padding_repeated_twice = base._reversed_padding_repeated_twice  # type: ignore[assignment]
        self.up = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        self._start()

    def weight_delta(self) -> Tensor:
        """Return the product of both convolutions as one kernel, shape ``[out, in, k, k]``."""
        first: Any = self.down.weight
        second: Any = self.up.weight
        # Two convolutions in a row, the second 1x1, are one convolution with the product of their kernels.
        return torch.einsum("or,rikl->oikl", second[:, :, 0, 0], first) * self.scaling


def _check_rank(rank: int) -> None:
    if rank < 1:
        raise ValueError(f"`r` must be at least 1; got {rank!r}.")


def _start_update(down: nn.Module, up: nn.Module, like: Tensor) -> None:
    for part in (down, up):
        part.to(device=like.device, dtype=like.dtype)
    # a = sqrt(5) is what torch draws nn.Linear and nn.Conv2d with.
    nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))  # type: ignore[arg-type]
    nn.init.zeros_(up.weight)  # type: ignore[arg-type]


def can_wrap(layer: nn.Module) -> bool:
    """Return whether ``layer`` is of a type that takes a low-rank update: linear, or a convolution without groups.

    Convolutions that standardise their kernels (of timm's ResNetV2 BiT and NFNets) do not: of them the output of a sum of kernels is
    not the sum of two outputs, so what was tuned could not be folded.
    """
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and not any(kind.__module__ == _STANDARDISED for kind in type(layer).__mro__)
    return isinstance(layer, nn.Linear)


def wrap_layer(layer: nn.Module, rank: int, scaling: float, dropout: float = 0.0) -> LowRankLayer:
    """Return ``layer`` with a low-rank update.

    Raises:
        ValueError: If the type of the layer takes none.
    """
    if isinstance(layer, nn.Linear):
        return LowRankLinear(layer, rank, scaling, dropout)
    if isinstance(layer, nn.Conv2d):
        return LowRankConv2d(layer, rank, scaling, dropout)
    raise ValueError(f"A low-rank update exists for Linear and Conv2d layers; got {type(layer).__name__}.")
