"""Several inputs of a row, each through its own trunk, their features side by side and mixed once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.interfaces.backbone import Backbone, FeatureShape

__all__ = ["JoinedBackbone"]


class JoinedBackbone(Backbone):
    """Features of a row with several inputs, ``[B, sum of widths + width]``.

    Each part is normalised, so that no trunk drowns the others by its scale. A hidden layer over all parts stands beside them:
    it sees what only two inputs together say, and linear heads can read it.

    Args:
        parts: ``{input: (its trunk, its record)}``.
        width: Units of the hidden layer.
        dropout: Probability of dropping one of them.

    Raises:
        ConfigError: If a trunk gives something else than a vector.
    """

    def __init__(self, parts: Mapping[str, tuple[Backbone, InputSpec]], *, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        for name, (trunk, _) in parts.items():
            if trunk.feature_shape.layout != "vector":
                raise ConfigError(
                    f"The input {name!r} gives {trunk.feature_shape.layout!r} features; of several inputs, each must give a "
                    "vector. Tasks with one prediction per pixel need a suite whose only input is the picture."
                )
        self.names = tuple(parts)
        self.specs = tuple(spec for _, spec in parts.values())
        self.parts = nn.ModuleList(trunk for trunk, _ in parts.values())
        widths = [trunk.feature_shape.width for trunk, _ in parts.values()]
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in widths)
        self.mix = nn.Linear(sum(widths), width)
        self.dropout = nn.Dropout(dropout)
        self.feature_shape = FeatureShape("vector", sum(widths) + width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, ``[B, sum of widths + width]``."""
        # Arrays of several inputs have prefixed names; `own` gives each trunk those that it knows.
        features = [norm(trunk(spec.own(inputs))) for trunk, norm, spec in zip(self.parts, self.norms, self.specs, strict=True)]
        joined = torch.cat(features, dim=1)
        return torch.cat([joined, self.dropout(F.gelu(self.mix(joined)))], dim=1)
