"""Multi-layer perceptrons: plain and residual."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor, nn

__all__ = ["ResidualMLP", "mlp"]


def mlp(widths: Sequence[int], *, dropout: float = 0.0, activation: Callable[[], nn.Module] = nn.GELU) -> nn.Sequential:
    """Return linear layers with GELU or another activation (and dropout) between them; ``widths`` runs from the input's width to
    the output's.

    Example:
        >>> [type(layer).__name__ for layer in mlp([4, 8, 2])]
        ['Linear', 'GELU', 'Linear']
    """
    if len(widths) < 2:
        raise ValueError(f"`widths` needs an input and an output width; got {list(widths)}.")
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        if index > 0:
            layers.append(activation())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(width_in, width_out))
    return nn.Sequential(*layers)


class ResidualMLP(nn.Module):
    """A linear layer to ``width``, then pre-norm residual blocks, then a last norm: ``[B, in]`` to ``[B, width]``.

    Args:
        num_inputs: Width of the input.
        width: Width of the trunk.
        num_blocks: Number of residual blocks; 0 leaves a normalised linear layer.
        expansion: Hidden width of a block over ``width``.
        dropout: Probability of dropping a hidden unit of a block.
    """

    def __init__(self, num_inputs: int, width: int, num_blocks: int, *, expansion: float = 2.0, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = max(1, round(width * expansion))
        self.project = nn.Linear(num_inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width))
            for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the features, ``[B, width]``."""
        state = self.project(inputs)
        for block in self.blocks:
            # Pre-norm: each block begins with its own norm, so the residual path itself is never normed before the end.
            state = state + block(state)
        return self.norm(state)
