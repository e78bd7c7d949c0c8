"""The trunk of TTM: patches of a scaled series, a prefix that says the sampling rate, mixers from fine patches to coarse ones.

Paper: Ekambaram et al., "Tiny Time Mixers (TTMs)", NeurIPS 2024, https://arxiv.org/abs/2401.03955. Symbols: ``sl`` is ``length``,
``pl`` is ``patch``, ``hf`` is ``width``, ``K`` is ``levels``, ``M`` is ``layers``.

Every channel goes through the trunk by itself, so that one trained trunk takes any number of channels. What is unknown is 0
after scaling, the mean of the context.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.mixers import AdaptiveMixer
from graftwork.nn.series_scale import RATES, context_scale, interval_codes, scaled_by

__all__ = ["TtmBackbone"]


class TtmBackbone(Backbone):
    """Inputs ``series``, ``series_mask`` ``[B, T, C]`` and ``series_times`` ``[B, T]`` (if there are any) to tokens
    ``[B, C * n, width]``, those of the first channel first.

    Args:
        length: Steps ``T``; where they are no multiple of ``patch``, the oldest ones are left out.
        channels: Channels ``C``; no weight depends on their number.
        width: Width of a patch.
        patch: Steps of a patch; patches do not overlap.
        levels: Levels of adaptive patching; 1 switches it off.
        layers: Mixer layers of each level.
        prefix: Whether an embedding of the sampling rate is one more patch, in front.
        expansion: Hidden width of the MLPs over the length of the mixed axis.
        dropout: Probability of dropping a hidden unit.

    Raises:
        ConfigError: If the series is shorter than a patch, or a size is out of range.
    """

    def __init__(
        self,
        length: int,
        channels: int,
        *,
        width: int = 32,
        patch: int = 8,
        levels: int = 3,
        layers: int = 2,
        prefix: bool = True,
        expansion: float = 2.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if patch < 1 or length < patch or channels < 1:
            raise ConfigError(
                f"TTM cuts {length} steps of {channels} channels into patches of {patch}: there must be at least one."
            )
        self.settings: dict[str, Any] = {
            "length": length, "width": width, "patch": patch, "levels": levels, "layers": layers, "prefix": prefix,
            "expansion": expansion, "dropout": dropout,
        }  # fmt: skip
        """What it was built with, but for the channels."""
        self.patch, self.channels = patch, channels
        self.patches = length // patch + int(prefix)
        self.embed = nn.Linear(patch, width)
        self.rate = nn.Embedding(len(RATES) + 1, width) if prefix else None
        self.mixer = AdaptiveMixer(width, self.patches, levels=levels, layers=layers, expansion=expansion, dropout=dropout)
        self.feature_shape = FeatureShape("tokens", width, (channels * self.patches,))
        self.forecaster: Mapping[str, Any] = {}
        """Decoder and head that it was trained with (see :mod:`graftwork.nn.backbones.ttm_folder`); empty of a new trunk."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the tokens, ``[B, C * n, width]``."""
        series, mask = inputs["series"], inputs["series_mask"]
        scaled = scaled_by(series, mask, *context_scale(series, mask))
        # [B, C, T], cut at the front to whole patches.
        steps = scaled.transpose(1, 2)[..., -(series.shape[1] // self.patch) * self.patch :]
        state = self.embed(steps.unflatten(2, (-1, self.patch)))  # [B, C, n, width]
        if self.rate is not None:
            # Without times the rate is unknown, code 0.
            codes = interval_codes(inputs["series_times"]) if "series_times" in inputs else mask[:, 0, 0].long() * 0
            # [B, C, 1, width]: the same prefix for every channel.
            first = self.rate(codes)[:, None, None].expand(-1, self.channels, -1, -1)
            state = torch.cat([first, state], dim=2)
        return self.mixer(state).flatten(1, 2)
