"""The first stages of EfficientNet-Lite0 as plain modules, with its norms or with these folded into the convolutions.

Paper: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946; the Lite variants leave out squeeze-and-excitation and use ReLU6. Needs no further package: the
trained weights come from a network of timm that the caller has.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from graftwork.core.errors import ConfigError

__all__ = ["STAGES", "STEM_WIDTH", "LiteStages"]

STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Blocks, side of the kernel, stride of the first block, factor of the expansion, and channels of each stage that is known here."""
STEM_WIDTH = 32
"""Channels of the stem."""


class LiteStages(nn.Module):
    """Pictures ``[B, 3, S, S]`` in [-1, 1] to the map of the last stage: a half, quarter, eighth, sixteenth, sixteenth of the size.

    Args:
        count: Number of stages, 1 to 5.
        norms: Whether convolutions are followed by BatchNorm; without, they have a bias.

    Raises:
        ConfigError: If there are not so many stages.
    """

    def __init__(self, count: int, *, norms: bool) -> None:
        super().__init__()
        if not 1 <= count <= len(STAGES):
            raise ConfigError(f"`count` must be from 1 to {len(STAGES)} stages; got {count}.")
        self.stem = _Convolution(3, STEM_WIDTH, 3, stride=2, norms=norms)
        self.stages = nn.ModuleList()
        self.widths: list[int] = []
        """Channels of each stage."""
        width_in = STEM_WIDTH
        for blocks, side, stride, expansion, width in STAGES[:count]:
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(_Block(width_in, width, side, stride if number == 0 else 1, expansion, norms=norms))
                width_in = width
            self.stages.append(stage)
            self.widths.append(width)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the map of the last stage."""
        states = F.relu6(self.stem(pictures))
        for stage in self.stages:
            states = stage(states)
        return states

    @torch.no_grad()
    def begin_from(self, network: Any) -> None:
        """Take over the weights of timm's ``tf_efficientnet_lite0``, with its norms as they are in evaluation."""
        self.stem.begin_from(network.conv_stem, network.bn1)
        for stage, theirs in zip(self.stages, network.blocks, strict=False):
            for block, other in zip(cast(nn.Sequential, stage), theirs, strict=True):
                cast(_Block, block).begin_from(other)


class _Convolution(nn.Module):
    """A convolution that pads as TensorFlow does (more at the end than at the beginning), and its norm if it has one."""

    def __init__(self, width_in: int, width_out: int, side: int, *, stride: int = 1, groups: int = 1, norms: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width_in, width_out, side, stride=stride, groups=groups, bias=not norms)
        self.norm = nn.BatchNorm2d(width_out, eps=1e-3) if norms else None
        # For sizes that the stride divides.
        self._before, self._after = (side - stride) // 2, side - stride - (side - stride) // 2
        nn.init.kaiming_normal_(self.convolution.weight, mode="fan_out" if groups == 1 else "fan_in")

    def forward(self, states: Tensor) -> Tensor:
        if self._after:
            states = F.pad(states, (self._before, self._after, self._before, self._after))
        states = self.convolution(states)
        return states if self.norm is None else self.norm(states)

    def begin_from(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        if self.norm is not None:
            self.convolution.weight.copy_(convolution.weight)
            self.norm.weight.copy_(norm.weight)
            self.norm.bias.copy_(norm.bias)
            cast(Tensor, self.norm.running_mean).copy_(mean)
            cast(Tensor, self.norm.running_var).copy_(variance)
            return
        weight, bias = fuse_conv_bn_weights(convolution.weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
        self.convolution.weight.copy_(weight)
        cast(Tensor, self.convolution.bias).copy_(bias)


class _Block(nn.Module):
    """Expansion (where there is one), one convolution a channel, projection; with a residual connection where shapes allow."""

    def __init__(self, width_in: int, width_out: int, side: int, stride: int, expansion: int, *, norms: bool) -> None:
        super().__init__()
        width = width_in * expansion
        self.expand = _Convolution(width_in, width, 1, norms=norms) if expansion > 1 else None
        self.depthwise = _Convolution(width, width, side, stride=stride, groups=width, norms=norms)
        self.project = _Convolution(width, width_out, 1, norms=norms)
        self.is_residual = stride == 1 and width_in == width_out

    def forward(self, states: Tensor) -> Tensor:
        inner = states if self.expand is None else F.relu6(self.expand(states))
        inner = self.project(F.relu6(self.depthwise(inner)))
        return states + inner if self.is_residual else inner

    def begin_from(self, other: Any) -> None:
        if self.expand is None:
            self.depthwise.begin_from(other.conv_dw, other.bn1)
            self.project.begin_from(other.conv_pw, other.bn2)
            return
        self.expand.begin_from(other.conv_pw, other.bn1)
        self.depthwise.begin_from(other.conv_dw, other.bn2)
        self.project.begin_from(other.conv_pwl, other.bn3)
