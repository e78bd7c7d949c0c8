"""A small encoder of token codes with states for every token, untrained or from a file, with deltas of languages attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from graftwork.core.errors import FileFormatError
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape
from graftwork.nn.attention import AttentionBlock
from graftwork.nn.module_delta import load_delta

__all__ = ["TokenEncoder"]


class TokenEncoder(BlockBackbone):
    """Input ``tokens`` int64 ``[B, length]`` (0 = padding, read like any other code) to tokens ``[B, length, width]``.

    Args:
        num_tokens: Number of token codes.
        length: Most tokens of a text.
        width: Model width, divisible by ``num_heads``.
        depth: Number of blocks.
        num_heads: Number of attention heads.
        hidden: Hidden width of the feed-forward networks.
        dropout: Probability of dropping an attention weight or a hidden unit.
        weights: File of weights (safetensors) that it begins with; empty draws them.
        deltas: Files of deltas that are attached, in this order; as one text, separated by commas.

    Raises:
        FileFormatError: If the file of weights is missing, damaged, or of another encoder.
        ConfigError: If a delta belongs to another base.
    """

    def __init__(
        self,
        num_tokens: int,
        length: int,
        *,
        width: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        hidden: int = 128,
        dropout: float = 0.0,
        weights: str | Path = "",
        deltas: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.width, self.length = width, length
        self.tokens, self.positions = nn.Embedding(num_tokens, width), nn.Embedding(length, width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(AttentionBlock(width, num_heads, hidden, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.feature_shape = FeatureShape("tokens", width, (length,))
        if weights:
            try:
                self.load_state_dict(load_file(weights))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise FileFormatError(
                    f"{weights} holds no weights of this encoder: {error}. Name the file of its base."
                ) from error
        for file in deltas.split(",") if isinstance(deltas, str) and deltas else deltas:
            load_delta(file).attach(self)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return codes and their positions, ``[B, length, width]``."""
        tokens = inputs["tokens"]
        places = torch.arange(tokens.shape[1], device=tokens.device)
        states: Tensor = self.tokens(tokens) + self.positions(places)
        return states

    def block_list(self) -> list[nn.Module]:
        """Return the blocks in order."""
        return list(self.blocks)

    def final_norm(self, states: Tensor) -> Tensor:
        """Return normalised tokens."""
        normed: Tensor = self.norm(states)
        return normed

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return normalised tokens; the inputs are not needed."""
        return self.final_norm(states)

    def block_shapes(self) -> list[FeatureShape]:
        """Return tokens for every block."""
        return [self.feature_shape] * len(self.blocks)
