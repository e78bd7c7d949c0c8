"""The own vision transformer for small pictures: patches, learned positions, pre-norm blocks.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929 (section 3.1). Departures: no class
token (heads pool or read the map); positions are learned for one picture size; larger pictures can be averaged down to a working
size first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs, input_of_kind
from graftwork.interfaces.backbone import Backbone, BlockBackbone, FeatureShape
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.backbones.text import TextBackbone
from graftwork.nn.taps import blocks_of

__all__ = ["LARGEST_WORKING_SIZE", "ViTBackbone", "block_trunk", "scratch_vit"]

LARGEST_WORKING_SIZE = 48
"""Pixels to which :func:`scratch_vit` averages larger pictures: attention over more than 64 small patches is slow on a CPU."""
_SIDE = 8
_UNTRAINED = (BehaviourBackbone, ConvBackbone, TableBackbone, TextBackbone)
"""What plans from scratch hand to every sharing operator, before anything is known of it."""


class ViTBackbone(BlockBackbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to a map ``[B, width, S / patch, S / patch]`` or tokens ``[B, length, width]``.

    ``embed``, ``blocks`` and ``finish`` are the three parts of the forward pass, so that sharing operators can put their own
    layers into blocks
    or walk through them one by one: ``finish(blocks(embed(inputs)))``.

    Args:
        image_size: Height and width ``S`` of the pictures in pixels, divisible by ``patch``.
        patch: Height and width of a patch in pixels.
        width: Model width, divisible by ``num_heads``.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        hidden: Hidden width of the feed-forward networks; None takes ``4 * width``.
        dropout: Probability of dropping an attention weight or a hidden unit.
        feature_map: Return a map (for dense tasks) in place of tokens.
        working_size: Larger pictures are averaged down to this height and width (by area, any ratio) before they are cut into
            patches; None keeps them as they are.

    Raises:
        ConfigError: If the picture that is cut does not divide into patches.
    """

    def __init__(
        self,
        image_size: int,
        *,
        patch: int = 4,
        width: int = 64,
        depth: int = 6,
        num_heads: int = 4,
        hidden: int | None = None,
        dropout: float = 0.0,
        feature_map: bool = False,
        working_size: int | None = None,
    ) -> None:
        super().__init__()
        size = image_size if working_size is None else min(image_size, working_size)
        if size < patch or size % patch:
            name = "image_size" if size == image_size else "working_size"
            raise ConfigError(f"`{name}` must be a multiple of `patch`; got {size} and {patch}.")
        self.register_buffer("shrink", _area_average(image_size, size) if size < image_size else None, persistent=False)
        self.shrink: Tensor | None
        self.side = size // patch
        self.width, self.feature_map = width, feature_map
        hidden = 4 * width if hidden is None else hidden
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, self.side**2, width))
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, hidden, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        length = self.side**2
        self.feature_shape = (
            FeatureShape("map", width, (self.side, self.side)) if feature_map else FeatureShape("tokens", width, (length,))
        )

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return patches with their positions, ``[B, length, width]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.patches.weight.dtype)
        if self.shrink is not None:
            # Rows, then columns, of each channel: [s, S] with [B, 3, S, S] with [S, s].
            picture = self.shrink @ picture @ self.shrink.T
        return self.patches(picture / 127.5 - 1.0).flatten(2).transpose(1, 2) + self.positions

    def final_norm(self, states: Tensor) -> Tensor:
        """Return normalised tokens."""
        tokens: Tensor = self.norm(states)
        return tokens

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return normalised tokens in the layout of :attr:`feature_shape`; the inputs are not needed."""
        tokens = self.final_norm(states)
        return self.to_map(tokens) if self.feature_map else tokens

    def to_map(self, tokens: Tensor) -> Tensor:
        """Return tokens ``[B, length, width]`` as a map ``[B, width, side, side]``."""
        return tokens.transpose(1, 2).unflatten(2, (self.side, self.side))

    def block_list(self) -> list[nn.Module]:
        """Return the blocks in order: the depths that can be tapped."""
        return list(self.blocks)

    def block_shapes(self) -> list[FeatureShape]:
        """Return tokens for every block."""
        return [FeatureShape("tokens", self.width, (self.side**2,))] * len(self.blocks)


def scratch_vit(inputs: InputSpecs, *, feature_map: bool = True, **settings: Any) -> ViTBackbone:
    """Return a transformer of 8 x 8 patches for pictures of any size, which are averaged down to at most 48 pixels.

    Args:
        inputs: The suite's inputs: pictures of at least 8 pixels.
        feature_map: See :class:`ViTBackbone`.
        settings: Further arguments of :class:`ViTBackbone`, except sizes and patch.

    Raises:
        ConfigError: If the suite has no pictures, or they are too small.
    """
    image_size = int(input_of_kind(inputs, "image", needed_by="A vision transformer").sizes["image_size"])
    patch = min(image_size, LARGEST_WORKING_SIZE) // _SIDE
    if patch < 1:
        raise ConfigError(f"`image_size` must be at least {_SIDE} pixels; got {image_size}.")
    return ViTBackbone(image_size, patch=patch, working_size=patch * _SIDE, feature_map=feature_map, **settings)


def block_trunk(
    make_backbone: Callable[[], Backbone] | None, inputs: InputSpecs, *, method: str, **settings: Any
) -> BlockBackbone:
    """Return the backbone that a plan hands over if it has blocks; in place of the small untrained trunk of a plan from scratch,
    a fresh transformer.

    For sharing operators that put layers of their own into blocks, or read them one by one. A trunk that somebody chose is never
    replaced.

    Args:
        make_backbone: As sharing operators get it; None always builds.
        inputs: See :func:`scratch_vit`.
        method: Who asks, for the message.
        settings: See :func:`scratch_vit`; not used if a trunk with blocks is handed over.

    Raises:
        ConfigError: If a chosen trunk has no blocks, the suite has no pictures, or they are too small.
    """
    backbone = None if make_backbone is None else make_backbone()
    # The exact types: a subclass is something that somebody chose.
    if backbone is None or type(backbone) in _UNTRAINED:
        return scratch_vit(inputs, **settings)
    return blocks_of(backbone, method)


def _area_average(size_in: int, size_out: int) -> Tensor:
    """Return ``[size_out, size_in]``: how much of each pixel lies in each of ``size_out`` equal parts of the side; rows sum to
    one."""
    # Edges of the new pixels in units of the old ones; float64, since they are compared with whole numbers.
    edges = torch.arange(size_out + 1, dtype=torch.float64) * size_in / size_out
    pixels = torch.arange(size_in, dtype=torch.float64)
    shared = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return (shared.clamp(min=0) * size_out / size_in).float()
