"""The nursery's convolutional network: the first five stages of EfficientNet-Lite0 and two residual blocks, all with BatchNorm.

Papers: Tan and Le, "EfficientNet", ICML 2019, https://arxiv.org/abs/1905.11946; He et al., "Deep Residual Learning for Image
Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385: basic blocks. The residual branches of the last two blocks begin at
zero, so that the network begins with what its first stages see.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape
from graftwork.nn.backbones.cifar_resnet import BasicBlock
from graftwork.nn.backbones.depths import DepthReader, pool_depths, spread_depths
from graftwork.nn.backbones.lite_stages import STAGES, STEM_WIDTH, LiteStages
from graftwork.nn.backbones.picture_size import resized
from graftwork.nn.backbones.resizable import Resizable

__all__ = ["MiniConv"]


class MiniConv(BlockBackbone, Resizable, DepthReader):
    """Input ``image``, uint8 (or float 0 to 255) ``[B, S, S, 3]`` with any ``S``, to a vector or a map.

    States are maps ``[B, width, h, w]``, channels innermost in memory. Weights are drawn from torch's global generator.

    Args:
        layout: ``"vector"`` is the mean of the last map over its places, ``[B, width]``; ``"map"`` is that map.
        size: Working resolution in pixels, a multiple of 16 from 32 on.
        width: Channels of the last two blocks.

    Raises:
        ConfigError: If a setting is out of range.
    """

    def __init__(self, *, layout: Literal["vector", "map"] = "vector", size: int = 64, width: int = 192) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"`width` must be at least 1; got {width}.")
        self.layout, self._width = layout, width
        self.depths: list[int] = []
        """Blocks whose pooled states stand behind the features; see :meth:`read_depths`."""
        self.lite = LiteStages(len(STAGES), norms=True)
        last = self.lite.widths[-1]
        self.tail = nn.ModuleList([BasicBlock(last, width), BasicBlock(width, width)])
        for block in self.tail:
            assert isinstance(block, BasicBlock)
            nn.init.zeros_(block.norm2.weight)
        self.set_working_size(size)

    def begin_from(self, network: Any) -> None:
        """Take over the stages of timm's ``tf_efficientnet_lite0``."""
        self.lite.begin_from(network)

    def set_working_size(self, size: int) -> None:
        """Change the working resolution, and with it the extent of the maps.

        Raises:
            ConfigError: If it is no multiple of 16 from 32 on.
        """
        if size < 32 or size % 16:
            raise ConfigError(f"The working size of this network must be a multiple of 16 pixels from 32 on; got {size}.")
        self.size = size
        self.feature_shape = self._shape()

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the stem's map, half of the working size, ``[B, 32, h, w]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.lite.stem.convolution.weight.dtype)
        picture = resized(picture, self.size) / 127.5 - 1.0
        if not torch.compiler.is_compiling():
            picture = picture.contiguous(memory_format=torch.channels_last)
        return F.relu6(self.lite.stem(picture))

    def block_list(self) -> list[nn.Module]:
        """Return the stages and the residual blocks in order."""
        return [*self.lite.stages, *self.tail]

    def fingerprint(self) -> str:
        """Return the SHA-256 of weights and of the settings that change the features: size, layout, depths."""
        settings = (self.size, self.layout, self.depths)
        return hashlib.sha256(f"{super().fingerprint()}{settings}".encode()).hexdigest()

    def block_shapes(self) -> list[FeatureShape]:
        """Return the map after each block."""
        side, found = self.size // 2, []
        for _, _, stride, _, width in STAGES:
            side //= stride
            found.append(FeatureShape("map", width, (side, side)))
        return found + [FeatureShape("map", self._width, (side, side)) for _ in self.tail]

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
        for number in range(len(self.block_list())):
            states = self.run_block(number, states, inputs)
            if number in self.depths:
                maps.append(states)
        return torch.cat([self.finish(states), pool_depths(maps)], dim=1)

    def read_depths(self) -> bool:
        """Put mean and deviation of the stem and of at most five blocks behind the features of layout ``"vector"``."""
        if self.layout != "vector":
            return False
        self.depths = spread_depths(len(self.block_list()))
        self.feature_shape = self._shape()
        return True

    def _shape(self) -> FeatureShape:
        shapes = self.block_shapes()
        if self.layout == "map":
            return shapes[-1]
        read = [STEM_WIDTH, *(shapes[depth].width for depth in self.depths)] if self.depths else []
        return FeatureShape("vector", self._width + 2 * sum(read))
