"""The nursery's vision transformer: pictures of any size, resized in its own graph, and 8 x 8 patches of 8 pixels.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929: the width and heads of ViT-Ti, with
ten blocks in place of twelve and no class token; patches are read by the first stages of EfficientNet-Lite0 (the hybrid of section
3.1), with which a short training gets much further. At other working sizes the learned positions are resampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.backbones.depths import DepthReader, pool_depths, spread_depths
from graftwork.nn.backbones.patch_reader import PATCH, PatchReader
from graftwork.nn.backbones.picture_size import resized
from graftwork.nn.backbones.resizable import Resizable
from graftwork.nn.backbones.vit import ViTBackbone

__all__ = ["MiniViT"]


class MiniViT(ViTBackbone, Resizable, DepthReader):
    """Input ``image``, uint8 (or float 0 to 255) ``[B, S, S, 3]`` with any ``S``, to one of three layouts.

    States are tokens ``[B, length, width]``, whatever the layout of the features is.

    Args:
        layout: ``"vector"`` is the mean of the normalised tokens, ``[B, width]``; ``"tokens"`` are all of them, ``[B, length,
            width]``; ``"map"`` puts them into their places, ``[B, width, side, side]``.
        size: Working resolution in pixels, a multiple of 8.
        trained_size: Working resolution that the learned positions belong to.
        width: Model width.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        hidden: Hidden width of the feed-forward networks; None takes ``4 * width``.

    Raises:
        ConfigError: If a size is no multiple of 8.
    """

    def __init__(
        self,
        *,
        layout: Literal["vector", "tokens", "map"] = "vector",
        size: int = 64,
        trained_size: int = 64,
        width: int = 192,
        depth: int = 10,
        num_heads: int = 3,
        hidden: int | None = None,
    ) -> None:
        super().__init__(trained_size, patch=PATCH, width=width, depth=depth, num_heads=num_heads, hidden=hidden)
        self.layout, self.trained_side = layout, self.side
        self.depths: list[int] = []
        """Blocks whose pooled states stand behind the features; see :meth:`read_depths`."""
        # In place of the one large convolution; the parent's other parts work with either.
        self.patches: nn.Module = PatchReader(width)  # type: ignore[assignment]
        self._draw_weights()
        self.set_working_size(size)

    def set_working_size(self, size: int) -> None:
        """Change the working resolution, and with it the number of tokens.

        Raises:
            ConfigError: If it is no multiple of 8.
        """
        if size < PATCH or size % PATCH:
            raise ConfigError(f"The working size of this transformer must be a multiple of {PATCH} pixels; got {size}.")
        self.size, self.side = size, size // PATCH
        self.feature_shape = self._shape()

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return patches with their positions, ``[B, length, width]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.positions.dtype)
        return self.patches(resized(picture, self.size) / 127.5 - 1.0) + self._positions()

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the features from the tokens after the last block."""
        tokens = self.final_norm(states)
        if self.layout == "vector":
            return tokens.mean(dim=1)
        return self.to_map(tokens) if self.layout == "map" else tokens

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says."""
        if not self.depths:
            return super().forward(inputs)
        states = self.embed(inputs)
        # The patches themselves are the first depth: their colours.
        maps = [self.to_map(states)]
        for number in range(len(self.blocks)):
            states = self.run_block(number, states, inputs)
            if number in self.depths:
                maps.append(self.to_map(states))
        return torch.cat([self.finish(states), pool_depths(maps)], dim=1)

    def read_depths(self) -> bool:
        """Put mean and deviation of the patches and of at most five blocks behind the features of layout ``"vector"``."""
        if self.layout != "vector":
            return False
        self.depths = spread_depths(len(self.blocks))
        self.feature_shape = self._shape()
        return True

    def fingerprint(self) -> str:
        """Return the SHA-256 of weights and of the settings that change the features: size, layout, depths."""
        settings = (self.size, self.layout, self.depths)
        return hashlib.sha256(f"{super().fingerprint()}{settings}".encode()).hexdigest()

    def block_shapes(self) -> list[FeatureShape]:
        """Return tokens for every block."""
        return [FeatureShape("tokens", self.width, (self.side**2,))] * len(self.blocks)

    def _draw_weights(self) -> None:
        """Draw weights as vision transformers have them: near 0, and the nearer the more blocks add to the states."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, AttentionBlock)
            for layer in (block.attention.output, block.feed[-1]):
                assert isinstance(layer, nn.Linear)
                nn.init.trunc_normal_(layer.weight, std=0.02 / (2 * len(self.blocks)) ** 0.5)

    def _positions(self) -> Tensor:
        if self.side == self.trained_side:
            return self.positions
        grid = self.positions.transpose(1, 2).unflatten(2, (self.trained_side, self.trained_side))
        grid = F.interpolate(grid, size=(self.side, self.side), mode="bilinear", align_corners=False)
        return grid.flatten(2).transpose(1, 2)

    def _shape(self) -> FeatureShape:
        if self.layout == "map":
            return FeatureShape("map", self.width, (self.side, self.side))
        if self.layout == "tokens":
            return FeatureShape("tokens", self.width, (self.side**2,))
        return FeatureShape("vector", self.width * (1 + 2 * (len(self.depths) + 1) if self.depths else 1))
