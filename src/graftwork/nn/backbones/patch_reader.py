"""How the nursery's transformer reads patches of 8 pixels: the first stages of its convolutional network, without norms.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, section 3.1: the hybrid architecture,
whose tokens are the places of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.cifar_resnet import BasicBlock
from graftwork.nn.backbones.mini_conv import MiniConv

__all__ = ["PATCH", "PatchReader"]

PATCH = 8
"""Height and width of a patch in pixels."""


class PatchReader(nn.Module):
    """Pictures ``[B, 3, S, S]`` to one token a patch, ``[B, width, S / 8, S / 8]``.

    Args:
        width: Width of the tokens.
        stem_width: Channels of the stem.
        widths: Channels of the two stages.
        blocks: Residual blocks a stage.
    """

    def __init__(self, width: int, *, stem_width: int = 32, widths: Sequence[int] = (64, 128), blocks: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem_width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList()
        width_in = stem_width
        for index, width_out in enumerate(each for each in widths for _ in range(blocks)):
            self.blocks.append(_PlainBlock(width_in, width_out, stride=2 if index == blocks else 1))
            width_in = width_out
        self.project = nn.Conv2d(width_in, width, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the tokens in their places."""
        if not torch.compiler.is_compiling():
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        states = F.max_pool2d(F.relu(self.stem(pictures)), 3, stride=2, padding=1)
        for block in self.blocks:
            states = block(states)
        return self.project(states)

    @torch.no_grad()
    def begin_from(self, network: MiniConv) -> None:
        """Take over the stem and the first blocks of a trained network; its norms, as they are in evaluation, go into the weights.

        Raises:
            ConfigError: If the network is narrower, wider or shorter.
        """
        theirs = network.block_list()
        if len(theirs) < len(self.blocks) or network.stem.weight.shape != self.stem.weight.shape:
            raise ConfigError("The network's first blocks are not those of this reader; both need the same widths.")
        _fold(self.stem, network.stem, network.stem_norm)
        for mine, block in zip(self.blocks, theirs[: len(self.blocks)], strict=True):
            assert isinstance(mine, _PlainBlock)
            assert isinstance(block, BasicBlock)
            _fold(mine.conv1, block.conv1, block.norm1)
            _fold(mine.conv2, block.conv2, block.norm2)
            if isinstance(block.shortcut, nn.Sequential):
                _fold(cast(nn.Conv2d, mine.shortcut), cast(nn.Conv2d, block.shortcut[0]), cast(nn.BatchNorm2d, block.shortcut[1]))


class _PlainBlock(nn.Module):
    """A basic block without norms."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Conv2d(width_in, width_out, 1, stride=stride)

    def forward(self, states: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(states))) + self.shortcut(states))


def _fold(mine: nn.Conv2d, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Write a convolution and the norm behind it into a convolution with bias."""
    if mine.weight.shape != convolution.weight.shape:
        raise ConfigError(
            f"A convolution of the network has the shape {tuple(convolution.weight.shape)}, this reader's "
            f"{tuple(mine.weight.shape)}; both need the same widths."
        )
    mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    weight, bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias)
    mine.weight.copy_(weight)
    cast(Tensor, mine.bias).copy_(bias)
