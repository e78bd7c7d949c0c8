"""A trunk for tables: embedded numbers and categories into a residual network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.mlp import ResidualMLP
from graftwork.nn.numeric_embedding import NumericEmbedding, smooth_clip

__all__ = ["TableNet"]

_SMALL = 9
"""Categories with so few codes are written as one-hot vectors: there is nothing to compress."""
_MOST_WAVES = 1024
"""Cosines of a row over all columns: those of a wide table have fewer each, so that a step stays within three of TableBackbone."""
_FEWEST_WAVES = 4
"""Columns that would have fewer each have none."""
_MOST_HINGES = 512
"""The same for hinges: the widest tables go in as plain numbers."""
_BOUND = 10.0
"""Where numbers end, in standard deviations. 3, as in RealMLP, was worse on the three tables where both were tried."""


class TableNet(Backbone):
    """Inputs ``numeric`` ``[B, F]`` and ``categorical`` ``[B, C]`` to features ``[B, width]``.

    Numbers are clipped smoothly and embedded (:class:`~graftwork.nn.numeric_embedding.NumericEmbedding`), small categories are
    one-hot vectors and large ones embeddings, every input has a learned scale, and the residual blocks of
    :class:`~graftwork.nn.backbones.mlp.TableBackbone` follow. Smooth clipping, one-hot vectors and scales are from RealMLP:
    Holzmüller, Grinsztajn and Steinwart, "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular Data", NeurIPS 2024,
    https://arxiv.org/abs/2407.04491. Its plain layers in place of the blocks were worse on the three tables where both were tried.

    Args:
        num_numeric: Number of numeric columns ``F``; may be 0.
        cardinalities: Number of codes of each categorical column, code 0 (missing or unseen) included.
        width: Width of the features.
        num_blocks: Residual blocks.
        embedding: Width of the embedding of a category with more than nine codes.
        dropout: Probability of dropping a hidden unit.
        hinges: Rectified linear functions of a numeric column; fewer in tables with more than 85 of them, 0 leaves numbers plain.
        frequencies: Cosines of a numeric column; fewer in tables with more than 64 of them, 0 leaves them out.

    Raises:
        ConfigError: If there is no column at all.
    """

    last: Tensor
    small: Tensor
    large: Tensor
    starts: Tensor
    codes: Tensor

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int] = (),
        *,
        width: int = 128,
        num_blocks: int = 3,
        embedding: int = 16,
        dropout: float = 0.1,
        hinges: int = 6,
        frequencies: int = 16,
    ) -> None:
        super().__init__()
        if num_numeric == 0 and not cardinalities:
            raise ConfigError("A table needs at least one feature column besides the targets; there is none.")
        self.feature_shape = FeatureShape("vector", width)
        self.num_numeric = num_numeric
        columns = max(num_numeric, 1)
        waves, bends = min(frequencies, _MOST_WAVES // columns), min(hinges, _MOST_HINGES // columns)
        if waves < min(frequencies, _FEWEST_WAVES):
            waves = 0
        self.numbers = NumericEmbedding(num_numeric, hinges=bends, frequencies=waves) if num_numeric and bends else None
        large = [column for column, size in enumerate(cardinalities) if size > _SMALL]
        small = [column for column, size in enumerate(cardinalities) if size <= _SMALL]
        sizes = torch.tensor([cardinalities[column] for column in large], dtype=torch.int64)
        for name, values in (("last", [size - 1 for size in cardinalities]), ("small", small), ("large", large)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("codes", torch.arange(_SMALL), persistent=False)
        # One table for all columns: one lookup a batch, however many columns there are.
        self.categories = nn.Embedding(int(sizes.sum()), embedding) if large else None
        if self.categories is not None:
            nn.init.normal_(self.categories.weight, std=0.1)
        numbers = num_numeric * (1 if self.numbers is None else self.numbers.width)
        inputs = numbers + len(small) * _SMALL + len(large) * embedding
        self.scale = nn.Parameter(torch.ones(inputs))
        self.trunk = ResidualMLP(inputs, width, num_blocks, dropout=dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, ``[B, width]``."""
        parts = []
        if self.num_numeric:
            values = smooth_clip(inputs["numeric"], _BOUND)
            parts.append(values if self.numbers is None else self.numbers(values).flatten(1))
        if len(self.last):
            codes = inputs["categorical"]
            # Codes out of range count as missing, rather than read the rows of another column.
            codes = torch.where((codes < 0) | (codes > self.last), torch.zeros_like(codes), codes)
            if len(self.small):
                marks = codes.index_select(1, self.small).unsqueeze(-1) == self.codes
                parts.append(marks.to(self.scale.dtype).flatten(1))
            if self.categories is not None:
                parts.append(self.categories(codes.index_select(1, self.large) + self.starts).flatten(1))
        joined = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        return self.trunk(joined * self.scale)
