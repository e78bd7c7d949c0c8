"""The own trunk for text: token embeddings, one small convolution, mean and maximum over the tokens."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.data.encoders.text import NETWORK_TOKENS
from graftwork.interfaces.backbone import Backbone, FeatureShape

__all__ = ["TextBackbone"]


class TextBackbone(Backbone):
    """Input ``tokens`` int64 ``[B, L]`` (0 = padding) to features ``[B, embedding + 2 * width]``.

    The features are the mean embedding (a bag of words) beside mean and maximum of a convolution over three neighbours.

    Args:
        vocabulary_size: Number of token codes, padding included.
        embedding: Width of an embedding.
        width: Channels of the convolution.
        dropout: Probability of dropping a channel of the embeddings, the same one over a whole text.
        longest: Tokens that are read of each text, from its beginning; a step takes a time that grows with them.
    """

    def __init__(
        self, vocabulary_size: int, *, embedding: int = 96, width: int = 96, dropout: float = 0.1, longest: int = NETWORK_TOKENS
    ) -> None:
        super().__init__()
        self.longest = longest
        self.feature_shape = FeatureShape("vector", embedding + 2 * width)
        self.embedding = nn.Embedding(vocabulary_size, embedding)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.norm = nn.LayerNorm(embedding)
        self.convolution = nn.Conv1d(embedding, width, 3, padding=1)
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features; a text without any token gets those of an empty bag, finite as any other."""
        tokens = inputs["tokens"]
        if tokens.shape[1] > self.longest:
            tokens = tokens[:, : self.longest]
        # [B, 1, L]
        known = (tokens != 0).unsqueeze(1)
        weight = known.to(self.embedding.weight.dtype)
        count = weight.sum(dim=2).clamp(min=1.0)
        words = self.dropout(self.norm(self.embedding(tokens)).transpose(1, 2)) * weight  # [B, embedding, L]
        # Weighted once more: next to a word the convolution gives padding a value, too.
        local = F.gelu(self.convolution(words)) * weight
        highest = torch.where(known, local, torch.full_like(local, -1.0)).amax(dim=2)  # GELU is above -0.2
        return torch.cat([words.sum(dim=2) / count, local.sum(dim=2) / count, highest], dim=1)
