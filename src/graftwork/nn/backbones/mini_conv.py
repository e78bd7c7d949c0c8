"""The nursery's convolutional network: a stem and three stages of residual blocks with BatchNorm.

Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385: basic blocks. The
stem takes every second pixel and pools, so that the stages work at 16, 8 and 4 pixels for pictures of 64; the shortcut of a block
that begins a stage is a 1x1 convolution with BatchNorm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape
from graftwork.nn.backbones.cifar_resnet import BasicBlock
from graftwork.nn.backbones.depths import DepthReader, pool_depths, spread_depths
from graftwork.nn.backbones.picture_size import resized
from graftwork.nn.backbones.resizable import Resizable

__all__ = ["MiniConv"]


class MiniConv(BlockBackbone, Resizable, DepthReader):
    """Input ``image``, uint8 (or float 0 to 255) ``[B, S, S, 3]`` with any ``S``, to a vector or a map.

    States are maps ``[B, width, h, w]``, channels innermost in memory. Weights are drawn from torch's global generator.

    Args:
        layout: ``"vector"`` is the mean of the last map over its places, ``[B, width]``; ``"map"`` is that map.
        size: Working resolution in pixels, at least 32.
        stem_width: Channels of the stem.
        widths: Channels of the stages; every stage but the first halves the map.
        blocks: Residual blocks a stage, at least 1.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(
        self,
        *,
        layout: Literal["vector", "map"] = "vector",
        size: int = 64,
        stem_width: int = 32,
        widths: Sequence[int] = (64, 128, 192),
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if not widths or min(*widths, stem_width, blocks) < 1:
            raise ConfigError(f"Widths and blocks must be at least 1; got {stem_width}, {list(widths)} and {blocks}.")
        self.layout = layout
        self.depths: list[int] = []
        """Blocks whose pooled states stand behind the features; see :meth:`read_depths`."""
        self.stem = nn.Conv2d(3, stem_width, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(stem_width)
        self.stages = nn.ModuleList()
        self._block_widths = [width for width in widths for _ in range(blocks)]
        width_in = stem_width
        for index, width in enumerate(self._block_widths):
            halves = index > 0 and index % blocks == 0
            self.stages.append(BasicBlock(width_in, width, stride=2 if halves else 1))
            width_in = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        self._per_stage = blocks
        self.set_working_size(size)

    def set_working_size(self, size: int) -> None:
        """Change the working resolution, and with it the extent of the maps.

        Raises:
            ConfigError: If it is below 32 pixels.
        """
        if size < 32:
            raise ConfigError(f"The working size of this network must be at least 32 pixels; got {size}.")
        self.size = size
        self.feature_shape = self._shape()

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the stem's map, a quarter of the working size, ``[B, stem_width, h, w]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.stem.weight.dtype)
        picture = resized(picture, self.size) / 127.5 - 1.0
        if not torch.compiler.is_compiling():
            picture = picture.contiguous(memory_format=torch.channels_last)
        return F.max_pool2d(F.relu(self.stem_norm(self.stem(picture))), 3, stride=2, padding=1)

    def block_list(self) -> list[nn.Module]:
        """Return the residual blocks in order."""
        return list(self.stages)

    def fingerprint(self) -> str:
        """Return the SHA-256 of weights and of the settings that change the features: size, layout, depths."""
        settings = (self.size, self.layout, self.depths)
        return hashlib.sha256(f"{super().fingerprint()}{settings}".encode()).hexdigest()

    def block_shapes(self) -> list[FeatureShape]:
        """Return the map after each block."""
        side = _halved(_halved(self.size))
        found = []
        for index, width in enumerate(self._block_widths):
            if index > 0 and index % self._per_stage == 0:
                side = _halved(side)
            found.append(FeatureShape("map", width, (side, side)))
        return found

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the features from the last map."""
        return states if self.layout == "map" else states.mean(dim=(2, 3))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says."""
        if not self.depths:
            return super().forward(inputs)
        states = self.embed(inputs)
        # The stem is the first depth: colours and edges.
        maps = [states]
        for number in range(len(self.stages)):
            states = self.run_block(number, states, inputs)
            if number in self.depths:
                maps.append(states)
        return torch.cat([self.finish(states), pool_depths(maps)], dim=1)

    def read_depths(self) -> bool:
        """Put mean and deviation of the stem and of at most five blocks behind the features of layout ``"vector"``."""
        if self.layout != "vector":
            return False
        self.depths = spread_depths(len(self.stages))
        self.feature_shape = self._shape()
        return True

    def _shape(self) -> FeatureShape:
        last = self.block_shapes()[-1]
        if self.layout == "map":
            return last
        read = [self.stem.out_channels, *(self._block_widths[depth] for depth in self.depths)] if self.depths else []
        return FeatureShape("vector", last.width + 2 * sum(read))


def _halved(side: int) -> int:
    """Return the side of a map after a convolution of stride 2 that pads to the full size."""
    return (side + 1) // 2
