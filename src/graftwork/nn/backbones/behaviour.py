"""The own trunk for tables with behaviour sequences: fields and one interest vector per sequence, the same for every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.behaviour import QueryAttention, SequenceEncoder
from graftwork.nn.fields import FieldLayout, Fields

__all__ = ["BehaviourBackbone"]


class BehaviourBackbone(Backbone):
    """Embedded fields and, per sequence, attention from the query field over an encoded history; all side by side, ``[B, (F + S)
    d]``.

    Args:
        sizes: Sizes of a table, with its layout (see :mod:`graftwork.nn.fields`).
        width: Width ``d`` of a field.
        num_heads: Heads of the encoder.
        hidden: Hidden width of the encoder's feed-forward networks.
        num_layers: Layers of the encoder.

    Raises:
        ConfigError: If the sizes are not those of a table or the layout does not fit.
    """

    def __init__(
        self, sizes: Mapping[str, Any], *, width: int = 16, num_heads: int = 2, hidden: int = 32, num_layers: int = 1
    ) -> None:
        super().__init__()
        layout = FieldLayout.from_sizes(sizes)
        self.fields = Fields(layout, width)
        self.feature_shape = FeatureShape("vector", (layout.num_fields + len(layout.sequences)) * width)
        self.encoder: SequenceEncoder | None = None
        if layout.sequences:
            self.encoder = SequenceEncoder(width, num_heads=num_heads, hidden=hidden, num_layers=num_layers)
            self.attention = QueryAttention(width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, ``[B, (F + S) d]``."""
        plain, states, filled = self.fields(inputs)
        if self.encoder is not None and states is not None and filled is not None:
            interests = self.attention(self.fields.query(plain), self.encoder(states, filled), filled)
            # One reading for all tasks: [B, 1, S, d] to [B, S, d].
            plain = torch.cat([plain, interests.squeeze(1)], dim=1)
        return plain.flatten(1)
