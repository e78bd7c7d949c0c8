"""Numbers of a table as small vectors, one learned map a column."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["NumericEmbedding", "smooth_clip"]

_FAR = 1e6
"""Where numbers are cut off before they are bent: the square of a larger one would be infinite."""


def smooth_clip(values: Tensor, bound: float = 3.0) -> Tensor:
    """Return ``x / sqrt(1 + (x / bound)^2)``: near 0 as it is, never beyond ``bound``, and growing in between.

    The tensor form of :func:`graftwork.domains.tabular.smooth_clip.smooth_clip`.

    Args:
        values: Any shape.
        bound: Largest absolute value, above 0.

    Example:
        >>> [round(float(value), 2) for value in smooth_clip(torch.tensor([0.1, 3.0, 1e30]))]
        [0.1, 2.12, 3.0]
    """
    values = values.clamp(-_FAR * bound, _FAR * bound)
    return values * torch.rsqrt(1.0 + (values / bound) ** 2)


class NumericEmbedding(nn.Module):
    """Columns ``[B, F]`` to ``[B, F, width]``: features of each value alone, by two learned maps a column, then the value itself.

    Networks on plain numbers learn smooth functions first; tables have steps and thresholds. The maps are the two that Gorishniy,
    Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022,
    https://arxiv.org/abs/2203.05556, found to help most when trained by gradients: hinges (linear and ReLU, "LR"), and mixed cosines
    (periodic, linear and ReLU, "PLR"). That each cosine has a learned phase and that the value stays beside them is from Holzmüller,
    Grinsztajn and Steinwart, "Better by Default", NeurIPS 2024, https://arxiv.org/abs/2407.04491.

    Args:
        num_columns: Number of columns ``F``, at least 1.
        hinges: Rectified linear functions of a value, at least 1.
        mixed: Rectified mixtures of the cosines of a value; 0 leaves the cosines out.
        frequencies: Cosines a column, at least 1; 0 leaves them out.
        spread: Standard deviation of the frequencies at the start, in turns per unit of the values.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, num_columns: int, *, hinges: int = 6, mixed: int = 3, frequencies: int = 16, spread: float = 0.5) -> None:
        super().__init__()
        if num_columns < 1 or hinges < 1 or mixed < 0 or frequencies < 0 or not spread > 0:
            raise ConfigError(
                "An embedding of numbers needs at least one column and one hinge, no negative number of cosines or mixtures, and a "
                f"spread above 0; got num_columns={num_columns}, hinges={hinges}, mixed={mixed}, frequencies={frequencies}, "
                f"spread={spread}."
            )
        self.has_waves = mixed > 0 and frequencies > 0
        self.width = hinges + 1 + (mixed if self.has_waves else 0)
        # Slopes and bends of the size of standardised values: most hinges bend where rows are.
        self.slope = nn.Parameter(torch.randn(num_columns, hinges))
        self.bend = nn.Parameter(0.7 * torch.randn(num_columns, hinges))
        if self.has_waves:
            bound = 1.0 / math.sqrt(frequencies)
            self.frequency = nn.Parameter(2 * math.pi * spread * torch.randn(num_columns, frequencies))
            self.phase = nn.Parameter(math.pi * (2 * torch.rand(num_columns, frequencies) - 1))
            self.weight = nn.Parameter(bound * (2 * torch.rand(num_columns, frequencies, mixed) - 1))
            self.bias = nn.Parameter(torch.zeros(num_columns, mixed))

    def forward(self, values: Tensor) -> Tensor:
        """Return the embeddings, ``[B, F, width]``: mixed cosines, hinges, the value."""
        column = values.unsqueeze(-1)
        parts = [torch.relu(column * self.slope + self.bend), column]
        if self.has_waves:
            waves = torch.cos(column * self.frequency + self.phase)
            # One small matrix a column: [F, B, frequencies] @ [F, frequencies, mixed].
            mixed = torch.bmm(waves.transpose(0, 1), self.weight).transpose(0, 1) + self.bias
            parts.insert(0, torch.relu(mixed))
        return torch.cat(parts, dim=-1)
