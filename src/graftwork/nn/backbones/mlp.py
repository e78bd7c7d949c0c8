"""The own trunk for tables: numeric columns and embedded categories into a residual MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.mlp import ResidualMLP

__all__ = ["TableBackbone"]


class TableBackbone(Backbone):
    """Inputs ``numeric`` ``[B, F]`` and ``categorical`` ``[B, C]`` to features ``[B, width]``.

    Args:
        num_numeric: Number of numeric columns ``F``; may be 0.
        cardinalities: Number of codes of each categorical column, code 0 (missing or unseen) included.
        width: Width of the features.
        num_blocks: Residual blocks.
        embedding: Width of a category's embedding.
        dropout: Probability of dropping a hidden unit.

    Raises:
        ConfigError: If there is no column at all.
    """

    starts: Tensor
    last: Tensor

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int] = (),
        *,
        width: int = 128,
        num_blocks: int = 3,
        embedding: int = 16,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_numeric == 0 and not cardinalities:
            raise ConfigError("A table needs at least one feature column besides the targets; there is none.")
        self.feature_shape = FeatureShape("vector", width)
        self.num_numeric = num_numeric
        self.embedding: nn.Embedding | None = None
        if cardinalities:
            # One table for all columns: one lookup a batch, however many columns there are.
            starts = torch.tensor([0, *cardinalities[:-1]], dtype=torch.int64).cumsum(0)
            self.register_buffer("starts", starts, persistent=False)
            self.register_buffer("last", torch.tensor(cardinalities, dtype=torch.int64) - 1, persistent=False)
            self.embedding = nn.Embedding(sum(cardinalities), embedding)
            nn.init.normal_(self.embedding.weight, std=0.1)
        self.trunk = ResidualMLP(num_numeric + embedding * len(cardinalities), width, num_blocks, dropout=dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, ``[B, width]``."""
        parts = []
        if self.num_numeric:
            parts.append(inputs["numeric"].clamp(-10.0, 10.0))  # one absurd cell must not own the row
        if self.embedding is not None:
            codes = inputs["categorical"]
            # Codes out of range count as missing, rather than read the rows of another column.
            codes = torch.where((codes < 0) | (codes > self.last), torch.zeros_like(codes), codes)
            parts.append(self.embedding(codes + self.starts).flatten(1))
        return self.trunk(torch.cat(parts, dim=1) if len(parts) > 1 else parts[0])
