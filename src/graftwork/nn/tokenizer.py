"""Feature tokenizer: every cell of a table becomes one token.

Paper: Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021, https://arxiv.org/abs/2106.11959
(section 3.3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["FeatureTokenizer"]


class FeatureTokenizer(nn.Module):
    """Numbers become ``x * weight_f + bias_f``, categories one row of an embedding table, each ``width`` wide.

    Args:
        num_numeric: Number of numeric columns, ``F``.
        cardinalities: Number of codes of each categorical column, ``C`` numbers, code 0 (missing or unseen) included.
        width: Token width ``d``.
        std: Standard deviation of the initial weights; biases start at 0.
        vocabularies: Number of the vocabulary of each categorical column; columns of one vocabulary read the same rows of the
            embedding table. None gives every column rows of its own.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        width: int,
        *,
        std: float = 0.01,
        vocabularies: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.num_tokens = num_numeric + len(cardinalities)
        self.weight = nn.Parameter(torch.empty(num_numeric, width).normal_(0.0, std))
        self.bias = nn.Parameter(torch.zeros(num_numeric, width))
        sizes: dict[int, int] = {}
        owners = list(range(len(cardinalities))) if vocabularies is None else list(vocabularies)
        for owner, size in zip(owners, cardinalities, strict=True):
            # Columns of one vocabulary may know different numbers of codes; the table holds the most.
            sizes[owner] = max(size, sizes.get(owner, 0))
        first = dict(zip(sizes, itertools.accumulate(sizes.values(), initial=0), strict=False))
        # All tables lie in one, column after column; `starts` moves each column's codes to its own rows.
        self.embedding = nn.Embedding(max(sum(sizes.values()), 1), width)
        nn.init.normal_(self.embedding.weight, 0.0, std)
        starts = torch.tensor([first[owner] for owner in owners], dtype=torch.int64)
        self.register_buffer("starts", starts, persistent=False)
        self.starts: Tensor

    def forward(self, numeric: Tensor, categorical: Tensor) -> Tensor:
        """Return tokens ``[B, F + C, d]`` from ``numeric`` float ``[B, F]`` and ``categorical`` int64 ``[B, C]``."""
        tokens = numeric.unsqueeze(-1) * self.weight + self.bias
        if len(self.starts) == 0:
            return tokens
        return torch.cat([tokens, self.embedding(categorical + self.starts)], dim=1)
