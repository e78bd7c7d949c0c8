"""The own vision transformer for small pictures: patches, learned positions, pre-norm blocks.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929 (section 3.1). Departures: no class token (heads pool or
read the map); positions are learned for one picture size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.attention import AttentionBlock

__all__ = ["ViTBackbone"]


class ViTBackbone(Backbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to a map ``[B, width, S / patch, S / patch]`` or tokens ``[B, length, width]``.

    ``embed``, ``blocks`` and ``finish`` are the three parts of the forward pass, so that sharing operators can put their own layers into blocks
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

    Raises:
        ConfigError: If the picture does not divide into patches.
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
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ConfigError(f"`image_size` must be a multiple of `patch`; got {image_size} and {patch}.")
        self.side = image_size // patch
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
        return self.patches(picture / 127.5 - 1.0).flatten(2).transpose(1, 2) + self.positions

    def finish(self, tokens: Tensor) -> Tensor:
        """Return normalised tokens in the layout of :attr:`feature_shape`."""
        tokens = self.norm(tokens)
        return self.to_map(tokens) if self.feature_map else tokens

    def to_map(self, tokens: Tensor) -> Tensor:
        """Return tokens ``[B, length, width]`` as a map ``[B, width, side, side]``."""
        return tokens.transpose(1, 2).unflatten(2, (self.side, self.side))

    def stages(self) -> list[nn.Module]:
        """Return the blocks in order: the depths that can be tapped."""
        return list(self.blocks)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says."""
        tokens = self.embed(inputs)
        for block in self.blocks:
            tokens = block(tokens)
        return self.finish(tokens)
