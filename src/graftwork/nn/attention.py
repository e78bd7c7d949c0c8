"""Attention blocks: pre-norm self-attention with a fixed mask, and rotary positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["AttentionBlock", "SelfAttention", "rotate_positions"]


def rotate_positions(states: Tensor, *, base: float = 10_000.0) -> Tensor:
    """Rotate pairs of channels by angles that grow with the position (rotary embedding).

    Paper: Su et al., "RoFormer", 2021, https://arxiv.org/abs/2104.09864 (equation 34).

    Args:
        states: Queries or keys, ``[..., length, width]``, ``width`` even.
        base: Ratio of the longest to the shortest wave length.
    """
    length, width = states.shape[-2], states.shape[-1]
    frequency = base ** (-torch.arange(0, width, 2, device=states.device, dtype=torch.float32) / width)
    # [length, width / 2]. In float32 whatever the states are: half precision cannot count long positions.
    angle = torch.arange(length, device=states.device, dtype=torch.float32).unsqueeze(1) * frequency
    cosine, sine = angle.cos().to(states.dtype), angle.sin().to(states.dtype)
    even, odd = states[..., 0::2], states[..., 1::2]
    # Interleaved again: [..., width / 2, 2] to [..., width].
    return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1).flatten(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention over ``[B, L, width]`` with a mask that is part of the module.

    The mask is kept as an additive one, so that nothing is built in the forward pass and the graph exports as it is.

    Args:
        width: Model width, divisible by ``num_heads``.
        num_heads: Number of heads.
        blocked: Bool ``[L, L]``, True where a query (row) may not read a key (column); None blocks nothing. The diagonal must be
            free.
        rotary: Whether positions are rotated into queries and keys.
        dropout: Probability of dropping an attention weight.

    Raises:
        ValueError: If the width does not fit the heads, or a token may not read itself.
    """

    def __init__(
        self, width: int, num_heads: int, *, blocked: Tensor | None = None, rotary: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % num_heads or (rotary and (width // num_heads) % 2):
            raise ValueError(
                f"`width` {width} must be divisible by `num_heads` {num_heads}" + (" into even heads." if rotary else ".")
            )
        if blocked is not None and bool(blocked.diagonal().any()):
            raise ValueError("`blocked` must leave the diagonal free: every token reads at least itself.")
        self.num_heads, self.rotary, self.dropout = num_heads, rotary, dropout
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        bias = None if blocked is None else torch.zeros(blocked.shape).masked_fill(blocked, float("-inf"))
        self.register_buffer("bias", bias, persistent=False)
        self.bias: Tensor | None

    def forward(self, states: Tensor) -> Tensor:
        """Return the attended states, ``[B, L, width]``."""
        batch, length, width = states.shape
        # Chunks, not indices: the gradient of an index is a whole tensor of zeros, once for each of the three.
        query, key, value = (
            part.view(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)
            for part in self.project(states).chunk(3, dim=-1)
        )
        if self.rotary:
            query, key = rotate_positions(query), rotate_positions(key)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias, dropout_p=dropout)
        # [B, heads, L, width of a head] to [B, L, width]
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class AttentionBlock(nn.Module):
    """Pre-norm attention and feed-forward network, each with a residual connection.

    Args:
        width: Model width.
        num_heads: Number of heads.
        hidden: Hidden width of the feed-forward network.
        blocked: See :class:`SelfAttention`.
        rotary: See :class:`SelfAttention`.
        dropout: Probability of dropping an attention weight or a hidden unit.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        *,
        blocked: Tensor | None = None,
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, num_heads, blocked=blocked, rotary=rotary, dropout=dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))

    def forward(self, states: Tensor) -> Tensor:
        """Return the new states, ``[B, L, width]``."""
        states = states + self.attention(self.attention_norm(states))
        return states + self.feed(self.feed_norm(states))
