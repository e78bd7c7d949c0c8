"""Ladder side tuning (LST): a narrow copy of a trunk's chain of blocks runs beside it and takes in its states rung by rung.

Paper: Sung, Cho and Bansal, "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning", NeurIPS 2022,
https://arxiv.org/abs/2206.06522. Departures: blocks of the ladder begin at random, not from weights pruned out of the trunk, and they
are pre-norm transformer blocks for every trunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.methods.tuning.side_tuning import SideTuning, TokenSide

__all__ = ["LadderNetwork", "LadderTuning"]

_TEMPERATURE = 0.1


class LadderNetwork(TokenSide):
    """``s_i = block_i(mu_i * down_i(h_i) + (1 - mu_i) * s_{i-1})`` with ``mu_i = sigmoid(gate_i / 0.1)``, and ``up(norm(s))``.

    Args:
        trunk: A chain of blocks over tokens or maps.
        hidden: Width of the ladder, divisible by ``num_heads``.
        num_heads: Attention heads of its blocks.
    """

    def __init__(self, trunk: BlockBackbone, *, hidden: int, num_heads: int = 4) -> None:
        super().__init__(trunk)
        self.hidden, self.num_heads = hidden, num_heads
        self.down = nn.ModuleList(nn.Linear(width, hidden) for width in self.widths)
        self.blocks = nn.ModuleList(_Rung(hidden, num_heads) for _ in self.widths[1:])
        self.gates = nn.Parameter(torch.zeros(len(self.widths) - 1))
        self.norm = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, self.width_out)

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"hidden": self.hidden, "num_heads": self.num_heads}

    def tokens(self, states: list[Tensor], mask: Tensor) -> Tensor:
        """Return the answer for each token; see :class:`.TokenSide`."""
        # [B, 1, 1, n], over heads and queries; finite, so that a text without tokens gives numbers.
        hidden = ((1.0 - mask) * torch.finfo(mask.dtype).min)[:, None, None]
        shares = torch.sigmoid(self.gates / _TEMPERATURE)
        side: Tensor = self.down[0](states[0])
        for share, down, block, state in zip(shares, list(self.down)[1:], self.blocks, states[1:], strict=True):
            side = block(share * down(state) + (1.0 - share) * side, hidden)
        answer: Tensor = self.up(self.norm(side))
        return answer


class _Rung(nn.Module):
    """A pre-norm transformer block that takes an additive mask."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, states: Tensor, hidden: Tensor) -> Tensor:
        parts = self.project(self.attention_norm(states)).chunk(3, dim=-1)
        # [B, n, width] to [B, heads, n, width of a head] and back.
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=hidden)
        states = states + self.output(mixed.transpose(1, 2).flatten(2))
        return states + self.feed(self.feed_norm(states))


class LadderTuning(SideTuning):
    """A ladder learns; the trunk is frozen and runs without gradients.

    Args:
        hidden: Width of the ladder; None takes an eighth of the trunk's features, rounded up to a multiple of ``num_heads``.
        num_heads: Attention heads of its blocks, at least 1.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If the heads do not divide the width; on :meth:`attach`, if the model is no chain of blocks over tokens or maps.
    """

    def __init__(self, *, hidden: int | None = None, num_heads: int = 4, working_size: int | None = None) -> None:
        super().__init__(working_size)
        if num_heads < 1 or (hidden is not None and (hidden < 1 or hidden % num_heads)):
            raise ConfigError(
                f"`hidden` must be a multiple of `num_heads`, which is at least 1; got {hidden!r} and {num_heads!r}."
            )
        self.hidden, self.num_heads = hidden, num_heads

    def make(self, trunk: BlockBackbone) -> LadderNetwork:
        """Return the network for a trunk."""
        eighth = -(-trunk.feature_shape.width // (8 * self.num_heads)) * self.num_heads
        return LadderNetwork(trunk, hidden=self.hidden or eighth, num_heads=self.num_heads)
