"""The own trunk for series: dilated convolutions over the steps, on values scaled by their own context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.series_scale import context_scale, scaled_by

__all__ = ["SeriesBackbone", "series_trunk"]

_LATEST = 16
"""Steps at the end of a row whose values the vector holds as they are: the next ones are like them."""


class SeriesBackbone(Backbone):
    """Inputs ``series`` and ``series_mask`` ``[B, T, C]`` to a vector, or to tokens ``[B, T, width]``, one a step.

    The vector holds the mean over the known steps, the maximum over all of them (after GELU; an unknown step counts as 0) and the
    state after the last one, beside what scaling takes away (mean
    and deviation of each channel) and the latest scaled values.

    Args:
        length: Steps ``T``.
        channels: Channels ``C``.
        width: Channels of the convolutions.
        tokens: Return one token a step in place of a vector, for tasks over steps.
        dropout: Probability of dropping a channel of the convolutions, over a whole row.
    """

    def __init__(self, length: int, channels: int, *, width: int = 64, tokens: bool = False, dropout: float = 0.1) -> None:
        super().__init__()
        self.tokens = tokens
        self.latest = min(_LATEST, length)
        self.project = nn.Conv1d(3 * channels, width, 1)
        # No wider than the series: the outer taps of a wider kernel would mostly read padding.
        dilations = [2**level for level in range(5) if 2 * 2**level < max(length, 3)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width),
                nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
                nn.GELU(),
                nn.Dropout1d(dropout),
                nn.Conv1d(width, width, 1),
            )
            for dilation in dilations
        )
        vector = 3 * width + (2 + self.latest) * channels
        self.feature_shape = FeatureShape("tokens", width, (length,)) if tokens else FeatureShape("vector", vector)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features; a row without any known step gets finite ones as well."""
        series, mask = inputs["series"], inputs["series_mask"]
        center, scale = context_scale(series, mask)
        scaled = scaled_by(series, mask, center, scale)
        known = mask.to(series.dtype)
        # Scaling takes the level away, which some tasks ask for; one absurd value must not own the row.
        values = (series * known).clamp(-10.0, 10.0)
        # [B, T, 3 C] to [B, 3 C, T] and, projected, [B, width, T]. The mask tells a known 0 from an unknown one.
        state = self.project(torch.cat([scaled, values, known], dim=2).transpose(1, 2))
        for layer in self.layers:
            state = state + layer(state)
        if self.tokens:
            return state.transpose(1, 2)
        there = known.amax(dim=2).unsqueeze(1)  # [B, 1, T]
        mean = (state * there).sum(dim=2) / there.sum(dim=2).clamp(min=1.0)
        highest = (F.gelu(state) * there).amax(dim=2)
        latest = scaled[:, -self.latest :].flatten(1)
        return torch.cat([mean, highest, state[:, :, -1], center, scale.log(), latest], dim=1)


def series_trunk(sizes: Mapping[str, Any], *, dense: bool = False) -> Backbone:
    """Return the trunk of series; ``dense`` asks for one token a step."""
    return SeriesBackbone(int(sizes["length"]), int(sizes["channels"]), tokens=dense)
