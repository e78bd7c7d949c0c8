r"""Projectors that put the map of one network into the places and widths of another one, for comparing features of different
architectures.

Paper: Fan et al., "ScaleKD: Strong Vision Transformers Could Be Excellent Teachers", NeurIPS 2024,
https://github.com/deep-optimization/ScaleKD: the cross-attention projector, in which learned queries, one for each token of the
teacher, read the student's map.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError

__all__ = ["AttentionProjector", "ConvProjector", "as_map", "as_tokens"]


def as_map(states: Tensor) -> Tensor:
    """Return states as a map ``[B, C, h, w]``.

    Args:
        states: Maps as they are; tokens ``[B, N, C]`` of a square grid, with or without a class token in front, which is dropped,
            and other tokens as one row; vectors ``[B, C]`` as a single place.

    Raises:
        ConfigError: If they have another number of dimensions.
    """
    if states.ndim == 4:
        return states
    if states.ndim == 2:
        return states[:, :, None, None]
    if states.ndim != 3:
        raise ConfigError(f"Maps [B, C, h, w], tokens [B, N, C] or vectors [B, C] are compared; got {list(states.shape)}.")
    for extra in (0, 1):
        side = math.isqrt(states.shape[1] - extra)
        if side > 1 and side * side == states.shape[1] - extra:
            return states[:, extra:].transpose(1, 2).unflatten(2, (side, side))
    return states.transpose(1, 2).unsqueeze(2)


def as_tokens(states: Tensor) -> Tensor:
    """Return a map ``[B, C, h, w]`` as tokens ``[B, h * w, C]``; tokens as they are."""
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


class AttentionProjector(nn.Module):
    """Learned queries read a map by multi-head attention, and give tokens of another width and number.

    The map goes through a 3x3 convolution, BatchNorm and ReLU, and gets learned positions; queries go through a linear layer and
    ReLU. What the attention gives is normalised and goes through a feed-forward network with a residual connection around it; there
    is none around the attention.

    Args:
        shape: ``(C, h, w)`` of the map.
        num_tokens: Number of tokens that come out.
        width: Their width, divisible by ``num_heads``.
        num_heads: Number of heads.
        sharpness: Factor on the products of queries and keys, beside the usual root of the width.
        own_queries: Whether it has queries of its own; without, they are handed in with every map.

    Raises:
        ConfigError: If the width does not divide into the heads.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_tokens: int,
        width: int,
        *,
        num_heads: int = 4,
        sharpness: float = 5.0,
        own_queries: bool = True,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"num_heads must divide the teacher's width {width}; got {num_heads}.")
        channels, height, breadth = shape
        self.num_heads, self.sharpness = num_heads, sharpness
        self.read = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.positions = nn.Parameter(torch.empty(1, channels, height, breadth))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.queries = nn.Parameter(torch.randn(1, num_tokens, width)) if own_queries else None
        # The 1x1 convolution of the paper: a linear layer for each query.
        self.ask = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(channels, width), nn.Linear(channels, width)
        self.output = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return tokens ``[B, num_tokens, width]``.

        Args:
            states: The map ``[B, C, h, w]``.
            queries: ``[B, num_tokens, width]``, in place of its own.
        """
        asked = self.queries if queries is None else queries
        assert asked is not None, "a projector without queries of its own is given some"
        source = (self.read(states) + self.positions).flatten(2).transpose(1, 2)
        query = self._heads(self.query(self.ask(asked)).expand(len(states), -1, -1))
        key, value = self._heads(self.key(source)), self._heads(self.value(source))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.sharpness / math.sqrt(query.shape[-1]))
        tokens = self.norm(self.output(mixed.transpose(1, 2).flatten(2)))
        return tokens + self.feed(tokens)

    def _heads(self, states: Tensor) -> Tensor:
        """Return ``[B, heads, N, width of a head]``."""
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class ConvProjector(nn.Module):
    """The projector of FitNets: a 1x1 convolution with BatchNorm, resized to the teacher's places.

    Args:
        shape: ``(C, h, w)`` of the map.
        num_tokens: Number of tokens that come out; a square number, or one more with a first token that is the mean of the others.
        width: Their width.
    """

    def __init__(self, shape: tuple[int, int, int], num_tokens: int, width: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.convolution = nn.Sequential(nn.Conv2d(shape[0], width, 1), nn.BatchNorm2d(width))

    def forward(self, states: Tensor, queries: Tensor | None = None) -> Tensor:
        """Return tokens ``[B, num_tokens, width]`` of a map ``[B, C, h, w]``; queries are not needed."""
        side = math.isqrt(self.num_tokens)
        size = (side, side) if side * side in (self.num_tokens, self.num_tokens - 1) else (1, self.num_tokens)
        found = F.interpolate(self.convolution(states), size=size, mode="bilinear", align_corners=False)
        tokens = found.flatten(2).transpose(1, 2)
        missing = self.num_tokens - tokens.shape[1]
        return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) if missing else tokens
