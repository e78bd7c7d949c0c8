"""The residual network for small pictures: three stages of basic blocks, 6n+2 layers deep.

Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385, section 4.2. Where
a stage begins, the shortcut is a 1x1 convolution with BatchNorm, as in the code base of Frankle et al.
(facebookresearch/open_lth), and not the parameter-free one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape

__all__ = ["BasicBlock", "CifarResNet"]

_NARROW = 8


class _NarrowPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride, that drops the places it does not look at first.

    oneDNN 3.12 writes beyond its memory in the backward pass of a strided one with fewer than eight channels, in the memory layout
    channels-last on CPUs without AVX-512.
    """

    def forward(self, input: Tensor) -> Tensor:  # torch's name of the argument
        """Return ``[B, width_out, h, w]``."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, each followed by BatchNorm, and a shortcut; ReLU after the first norm and after the sum.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, width_in: int, width_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            narrow = _NarrowPointwise if width_in < _NARROW else nn.Conv2d
            self.shortcut = nn.Sequential(narrow(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm2d(width_out))

    def forward(self, state: Tensor) -> Tensor:
        """Return ``[B, width_out, h, w]`` of a state ``[B, width_in, H, W]``."""
        inner = F.relu(self.norm1(self.conv1(state)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(state))


class CifarResNet(Backbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to a vector: the mean of the last map over its places.

    Convolutions have no bias and begin with Kaiming's normal distribution, from torch's global generator.

    Args:
        depth: Layers with weights along the path, shortcuts apart: 6n+2, so 8, 14, 20, 26 ...
        channels: Channels of the three stages.

    Raises:
        ConfigError: If ``depth`` is not 6n+2, or there are not three stages.
    """

    def __init__(self, depth: int = 20, *, channels: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ConfigError(f"`depth` must be 6n+2 (8, 14, 20, 26 ...); got {depth!r}.")
        if len(channels) != 3 or min(channels) < 1:
            raise ConfigError(f"`channels` are three numbers of at least 1, one for each stage; got {list(channels)!r}.")
        # 6n + 2: three stages of n blocks of two convolutions, the stem, and the classifier that follows.
        blocks = (depth - 2) // 6
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        self.stages = nn.ModuleList()
        width = channels[0]
        for index, width_out in enumerate(channels):
            # Every stage but the first halves the map.
            first = BasicBlock(width, width_out, stride=1 if index == 0 else 2)
            self.stages.append(nn.Sequential(first, *(BasicBlock(width_out, width_out) for _ in range(blocks - 1))))
            width = width_out
        self.feature_shape = FeatureShape("vector", width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features ``[B, channels[-1]]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(self.stem.weight.dtype) / 127.5 - 1.0
        state = F.relu(self.norm(self.stem(picture)))
        for stage in self.stages:
            state = stage(state)
        return torch.mean(state, dim=(2, 3))
