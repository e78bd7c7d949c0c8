"""Multi-scale decoders: several maps of one stream are brought to one size, put side by side and mixed, then a head predicts.

The form is that of the high-resolution head of HRNet (Sun et al., "High-Resolution Representations for Labeling Pixels and
Regions", 2019, https://arxiv.org/abs/1904.04514, section 3): upsample, concatenate, 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.heads import build_head

__all__ = ["MultiScaleDecoder"]


class MultiScaleDecoder(nn.Module):
    """One task's decoder over maps of several scales.

    :meth:`fuse` reduces every map by a 1x1 convolution, brings all to the size of the first (finest) one and puts them side by
    side; :meth:`predict` mixes the channels by a 1x1 convolution, norm and GELU, and applies the task's head. Group norm stands
    for HRNet's batch norm, so that averaged weights and resumed runs need no special care.

    Args:
        task: The task; one prediction a pixel or a row.
        widths: Channels of each map.
        channels: Channels that each map is reduced to; one number for all or one each.
        size: Height and width of a dense target in pixels.
        head_hidden: Hidden width of the head; None takes the default of :func:`graftwork.nn.heads.build_head`.

    Raises:
        ConfigError: If there is no map, or as many ``channels`` as maps are not given.
    """

    def __init__(
        self,
        task: TaskSpec,
        widths: Sequence[int],
        *,
        channels: int | Sequence[int] = 16,
        size: tuple[int, int] | None = None,
        head_hidden: int | None = None,
    ) -> None:
        super().__init__()
        reduced = [channels] * len(widths) if isinstance(channels, int) else list(channels)
        if not widths or len(reduced) != len(widths) or min(reduced) < 1:
            raise ConfigError(
                f"A multi-scale decoder needs maps and a number of channels for each; got widths "
                f"{list(widths)}, channels {reduced}."
            )
        total = sum(reduced)
        self.reduce = nn.ModuleList(nn.Conv2d(wide, narrow, 1, bias=False) for wide, narrow in zip(widths, reduced, strict=True))
        self.mix = nn.Sequential(nn.Conv2d(total, total, 1), nn.GroupNorm(1, total), nn.GELU())
        self.head = build_head(FeatureShape("map", total), task, hidden=head_hidden, size=size)

    def fuse(self, maps: Sequence[Tensor]) -> Tensor:
        """Return all maps side by side, ``[B, sum(channels), h, w]`` with the first one's ``h`` and ``w``, from ``[B, widths[i],
        h_i, w_i]``."""
        size = maps[0].shape[-2:]
        reduced = [layer(features) for layer, features in zip(self.reduce, maps, strict=True)]
        # A 1x1 convolution and a resize commute; reducing first is cheaper.
        return torch.cat([item if item.shape[-2:] == size else _resize(item, size) for item in reduced], dim=1)

    def predict(self, fused: Tensor) -> Tensor:
        """Return raw outputs from :meth:`fuse`'s result: ``[B, num_outputs]``, or ``[B, num_outputs, height, width]`` for dense
        tasks."""
        return self.head(self.mix(fused))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return ``predict(fuse(maps))``."""
        return self.predict(self.fuse(maps))


def _resize(features: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)
