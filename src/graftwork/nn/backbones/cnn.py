"""The own trunk for small pictures: four convolutions, fast on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.interfaces.backbone import Backbone, FeatureShape

__all__ = ["ConvBackbone", "shrink_factor"]


class ConvBackbone(Backbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to features: a vector, or a map with a quarter of the working size.

    Pictures of 48 pixels and more are first averaged down to a working size between 24 and 47 pixels (on 72 pixel drawings, four
    tasks, 24 pixels were as good as 36 at half the time). The vector holds mean and
    maximum of the last map (what is there, and how much of it) and the mean of the first one, which no norm has touched yet:
    colour and area stay readable. Group norm knows no running statistics, so that averaged weights and resumed runs need no
    special care.

    Args:
        image_size: Height and width ``S`` of the pictures in pixels.
        channels: Channels of the four convolutions.
        feature_map: Return the last map ``[B, channels[-1], h, w]`` for dense tasks in place of a vector.
        groups: Groups of the norms; divides the last three ``channels``.
    """

    def __init__(
        self, image_size: int, *, channels: Sequence[int] = (32, 64, 128, 128), feature_map: bool = False, groups: int = 8
    ) -> None:
        super().__init__()
        self.factor = shrink_factor(image_size)
        self.feature_map = feature_map
        first, second, third, last = channels
        # A map keeps the full size one convolution longer: edges matter per pixel. Both paths end at a quarter of it.
        self.stem = nn.Conv2d(3, first, 3, stride=1 if feature_map else 2, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1), nn.GroupNorm(groups, width_out), nn.ReLU())
            for width_in, width_out, stride in ((first, second, 2 if feature_map else 1), (second, third, 2), (third, last, 1))
        )
        working = image_size // self.factor
        # Two convolutions of stride 2 with padding 1, each rounding up.
        extent = ((working + 1) // 2 + 1) // 2
        self.feature_shape = (
            FeatureShape("map", last, (extent, extent)) if feature_map else FeatureShape("vector", first + 2 * last)
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.stem.weight.dtype)
        if self.factor > 1:
            picture = F.avg_pool2d(picture, self.factor)
        state = first = F.relu(self.stem(picture / 127.5 - 1.0))
        for stage in self.stages:
            state = stage(state)
        if self.feature_map:
            return state
        return torch.cat([first.mean(dim=(2, 3)), state.mean(dim=(2, 3)), state.amax(dim=(2, 3))], dim=1)


def shrink_factor(image_size: int) -> int:
    """Return how many pixels become one: a divisor of the size if there is one above 1, so that no edge is cut off."""
    # The working size is at least 24 pixels.
    most = max(1, image_size // 24)
    return next((factor for factor in range(most, 1, -1) if image_size % factor == 0), most)
