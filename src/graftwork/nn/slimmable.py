"""Layers whose width can be changed after training: a narrow layer is the leading part of the wide one.

Paper: Yu et al., "Slimmable Neural Networks", ICLR 2019, https://arxiv.org/abs/1812.08928. A layer at ratio ``r`` uses its first
``floor(r * C)`` channels, so that all widths share their weights; norms are *switchable*: every width has an affine pair (and
running statistics) of its own, because the statistics of features differ between widths.

Width is state of a module (``set_active_width``), never an argument of ``forward``. ``materialise`` copies the parts in use into
ordinary
PyTorch layers: the network to deploy and to count operations of.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from graftwork.core.errors import ConfigError

__all__ = ["NormKind", "Slimmable", "SlimmableConv2d", "SlimmableLinear", "SwitchableNorm", "active_channels", "materialise"]

NormKind = Literal["group", "layer", "batch"]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def active_channels(channels: int, ratio: float) -> int:
    """Return how many of ``channels`` are used at width ``ratio``: ``floor(ratio * channels)``, at least 1.

    Raises:
        ConfigError: If the ratio is not in ``(0, 1]``.

    Example:
        >>> active_channels(30, 0.25), active_channels(10, 0.7)
        (7, 7)
    """
    if not 0.0 < ratio <= 1.0:
        raise ConfigError(f"A width ratio is above 0 and at most 1; got {ratio!r}.")
    # 0.7 * 10 is just below or above 7, depending on the number.
    return max(1, math.floor(ratio * channels + 1e-9))


class Slimmable(nn.Module):
    """A layer with a width. A fresh one has its full width."""

    @abstractmethod
    def set_active_width(self, ratio: float, in_ratio: float | None = None) -> None:
        """Use a part of the channels from now on.

        Args:
            ratio: Share of the output channels, in ``(0, 1]``.
            in_ratio: Share of the input channels, where it differs from ``ratio``.
        """

    @abstractmethod
    def slice(self) -> nn.Module:
        """Return an ordinary layer with a copy of the weights in use, which computes the same. No random number is drawn."""


class SlimmableConv2d(Slimmable, nn.Conv2d):
    """A 2-D convolution with slimmable channels.

    Args:
        in_channels: Full number of input channels.
        out_channels: Full number of output channels.
        kernel_size: Height and width of the kernel.
        stride: Step in pixels.
        padding: Zeros around the picture.
        bias: Whether to add a bias.
        slim_in: Whether the input's width changes (not for pictures).
        slim_out: Whether the output's width changes (not for predictions).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        slim_in: bool = True,
        slim_out: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=bias)
        self.slim_in, self.slim_out = slim_in, slim_out
        self.active_in, self.active_out = in_channels, out_channels

    def set_active_width(self, ratio: float, in_ratio: float | None = None) -> None:
        """Use a part of the channels from now on."""
        self.active_out = active_channels(self.out_channels, ratio) if self.slim_out else self.out_channels
        self.active_in = active_channels(self.in_channels, in_ratio or ratio) if self.slim_in else self.in_channels

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[B, active_out, h, w]`` from ``[B, active_in, H, W]``."""
        weight, bias = _leading(self.weight, self.bias, self.active_out, self.active_in)
        # torch's own forward with another weight: padding modes and strides are handled there.
        return self._conv_forward(input, weight, bias)

    def slice(self) -> nn.Conv2d:
        """Return the convolution in use as an ordinary one."""
        plain = skip_init(
            nn.Conv2d,
            self.active_in,
            self.active_out,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        return _fill(cast(nn.Conv2d, plain), self.weight, self.bias, self.active_out, self.active_in)


class SlimmableLinear(Slimmable, nn.Linear):
    """A linear layer with slimmable widths.

    Args:
        in_features: Full width of the input.
        out_features: Full width of the output.
        bias: Whether to add a bias.
        slim_in: Whether the input's width changes.
        slim_out: Whether the output's width changes.
    """

    def __init__(
        self, in_features: int, out_features: int, *, bias: bool = True, slim_in: bool = True, slim_out: bool = True
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.slim_in, self.slim_out = slim_in, slim_out
        self.active_in, self.active_out = in_features, out_features

    def set_active_width(self, ratio: float, in_ratio: float | None = None) -> None:
        """Use a part of the widths from now on."""
        self.active_out = active_channels(self.out_features, ratio) if self.slim_out else self.out_features
        self.active_in = active_channels(self.in_features, in_ratio or ratio) if self.slim_in else self.in_features

    def forward(self, input: Tensor) -> Tensor:
        """Return ``[..., active_out]`` from ``[..., active_in]``."""
        return F.linear(input, *_leading(self.weight, self.bias, self.active_out, self.active_in))

    def slice(self) -> nn.Linear:
        """Return the layer in use as an ordinary one."""
        plain = skip_init(
            nn.Linear,
            self.active_in,
            self.active_out,
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        return _fill(cast(nn.Linear, plain), self.weight, self.bias, self.active_out, self.active_in)


class SwitchableNorm(Slimmable):
    """One norm for each width; the one in use is switched with the width.

    Args:
        channels: Full number of channels.
        ratios: Widths that there are.
        kind: ``group`` norms groups of ``group_size`` channels of ``[B, C, ...]``, ``layer`` the last dimension, ``batch`` each
            channel of ``[B, C, H, W]`` over the batch, with running statistics.
        group_size: Channels in a group; divides the channels at every width.

    Raises:
        ConfigError: If a width leaves a part of a group, or the kind is unknown.
    """

    def __init__(self, channels: int, ratios: Sequence[float], *, kind: NormKind = "group", group_size: int = 4) -> None:
        super().__init__()
        self.ratios = tuple(ratios)
        self.norms = nn.ModuleList(_norm(active_channels(channels, ratio), kind, group_size) for ratio in self.ratios)
        self._active = self._index(max(self.ratios))

    def _index(self, ratio: float) -> int:
        if ratio not in self.ratios:
            raise ConfigError(f"There is no norm for width {ratio!r}; the widths are {list(self.ratios)}.")
        return self.ratios.index(ratio)

    def set_active_width(self, ratio: float, in_ratio: float | None = None) -> None:
        """Use the norm of this width from now on."""
        self._active = self._index(ratio)

    def forward(self, input: Tensor) -> Tensor:
        """Return the normed input, in its shape."""
        return cast(Tensor, self.norms[self._active](input))

    def slice(self) -> nn.Module:
        """Return a copy of the norm in use."""
        return copy.deepcopy(self.norms[self._active])


def materialise(module: ModuleT) -> ModuleT:
    """Return a copy of a module whose slimmable layers are ordinary ones of the width in use, with equal outputs.

    What only other widths need is not in the copy. Modules around slimmable layers keep their class; their ``forward`` must not
    ask for widths.

    Args:
        module: Any module; a slimmable layer itself becomes its slice.
    """
    replaced: dict[int, object] = {}
    for part in module.modules():
        if isinstance(part, Slimmable):
            # As memo of the copy: deepcopy takes what stands there for already copied, and so puts the slice in its place.
            replaced[id(part)] = part.slice()
    return copy.deepcopy(module, replaced)


def _norm(channels: int, kind: NormKind, group_size: int) -> nn.Module:
    if kind == "group":
        if channels % group_size:
            raise ConfigError(
                f"{channels} channels are no whole groups of {group_size}: choose `group_size` so that it "
                f"divides the channels at every width."
            )
        return nn.GroupNorm(channels // group_size, channels)
    if kind == "layer":
        return nn.LayerNorm(channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    raise ConfigError(f"`kind` of a norm is group, layer or batch; got {kind!r}.")


def _leading(weight: Tensor, bias: Tensor | None, out: int, width_in: int) -> tuple[Tensor, Tensor | None]:
    # At full width the parameter itself: a slice would be one more node in the graph.
    if (out, width_in) == tuple(weight.shape[:2]):
        return weight, bias
    return weight[:out, :width_in], None if bias is None else bias[:out]


PlainT = TypeVar("PlainT", nn.Conv2d, nn.Linear)


@torch.no_grad()
def _fill(plain: PlainT, weight: Tensor, bias: Tensor | None, out: int, width_in: int) -> PlainT:
    narrow, narrow_bias = _leading(weight, bias, out, width_in)
    plain.weight.copy_(narrow).requires_grad_(weight.requires_grad)
    if bias is not None and narrow_bias is not None and plain.bias is not None:
        plain.bias.copy_(narrow_bias).requires_grad_(bias.requires_grad)
    return plain
