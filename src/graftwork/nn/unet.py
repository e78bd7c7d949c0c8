"""A small U-Net for pictures, with or without a time, that can be conditioned on the features of another picture.

After Ronneberger et al., "U-Net", https://arxiv.org/abs/1505.04597, with the residual blocks, time embedding and attention of
Ho et al., "Denoising Diffusion Probabilistic Models", https://arxiv.org/abs/2006.11239.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.attention import SelfAttention

__all__ = ["PictureEncoder", "ResidualBlock", "UNet", "embed_time"]

TIME_PERIOD = 10_000.0
"""Longest wave of the time embedding, in steps (divided by 2 pi)."""


def embed_time(time: Tensor, width: int) -> Tensor:
    """Return sines and cosines of a time at ``width / 2`` frequencies, float32 ``[B, width]``.

    Args:
        time: Steps, ``[B]``.
        width: Even.
    """
    frequency = torch.exp(torch.arange(width // 2, device=time.device) * (-math.log(TIME_PERIOD) / (width // 2)))
    angle = time.to(torch.float32).unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions with group norms and a residual connection; a time scales and shifts between them.

    A fresh block is its shortcut: the last convolution starts at zero.

    Args:
        num_in: Channels that come in.
        num_out: Channels that go out.
        time_width: Width of the embedded time; 0 takes none.
    """

    def __init__(self, num_in: int, num_out: int, time_width: int = 0) -> None:
        super().__init__()
        self.first_norm, self.second_norm = _norm(num_in), _norm(num_out)
        self.first = nn.Conv2d(num_in, num_out, 3, padding=1)
        self.second = nn.Conv2d(num_out, num_out, 3, padding=1)
        # As in DDPM: a deep chain of blocks starts as the identity.
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast(Tensor, self.second.bias))
        self.shortcut = nn.Conv2d(num_in, num_out, 1) if num_in != num_out else nn.Identity()
        self.modulate = nn.Linear(time_width, 2 * num_out) if time_width else None

    def forward(self, states: Tensor, time: Tensor | None = None) -> Tensor:
        """Return the new states, ``[B, num_out, H, W]``."""
        hidden = self.second_norm(self.first(F.silu(self.first_norm(states))))
        if self.modulate is not None and time is not None:
            scale, shift = self.modulate(F.silu(time))[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        changed: Tensor = self.shortcut(states) + self.second(F.silu(hidden))
        return changed


class _PixelAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm, self.attention = _norm(width), SelfAttention(width, num_heads)

    def forward(self, states: Tensor) -> Tensor:
        # [B, C, H, W] to [B, H * W, C] and back. Only at the coarsest scale, since the cost is quadratic in the pixels.
        tokens = self.attention(self.norm(states).flatten(2).transpose(1, 2))
        return states + tokens.transpose(1, 2).reshape(states.shape)


class PictureEncoder(nn.Module):
    """Features of a picture at several scales, each half as fine as the one before.

    Args:
        num_in: Channels of the picture.
        widths: Channels at each scale, finest first.
        patch: Pixels a side that the finest scale takes together.
    """

    def __init__(self, num_in: int, widths: Sequence[int], *, patch: int = 1) -> None:
        super().__init__()
        self.widths, self.patch = tuple(widths), patch
        self.stem = nn.Conv2d(num_in * patch**2, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Return ``[B, widths[i], H / (patch 2^i), W / (patch 2^i)]`` for each scale ``i``."""
        # [B, C, H, W] to [B, C * patch ** 2, H / patch, W / patch]: the rest works at this size.
        states = self.stem(F.pixel_unshuffle(picture, self.patch))
        scales = []
        for index, block in enumerate(self.blocks):
            states = block(states)
            scales.append(states)
            if index < len(self.down):
                states = self.down[index](states)
        return scales


class UNet(nn.Module):
    """Picture in, picture of the same size out.

    Args:
        num_in: Channels in.
        num_out: Channels out.
        widths: Channels at each scale, finest first.
        condition_widths: Channels of the features that are joined at each scale (see :class:`PictureEncoder`); empty takes none.
        patch: Pixels a side that the finest scale takes together; height and width must be divisible by ``patch * 2 **
            (len(widths) - 1)``.
        has_time: Whether :meth:`forward` gets a time.
        num_heads: Heads of the attention at the coarsest scale.

    Raises:
        ConfigError: If the widths cannot be used.
    """

    def __init__(
        self,
        num_in: int,
        num_out: int,
        widths: Sequence[int],
        *,
        condition_widths: Sequence[int] = (),
        patch: int = 1,
        has_time: bool = True,
        num_heads: int = 2,
    ) -> None:
        super().__init__()
        extra = tuple(condition_widths) or (0,) * len(widths)
        if not widths or len(extra) != len(widths):
            raise ConfigError(
                f"A U-Net has one width for each scale, and one of its condition; got {list(widths)} and "
                f"{list(condition_widths)}."
            )
        self.patch, self.num_scales, self.waves = patch, len(widths), 2 * widths[0]
        time = 4 * widths[0] if has_time else 0
        self.time = nn.Sequential(nn.Linear(self.waves, time), nn.SiLU(), nn.Linear(time, time)) if has_time else None
        self.stem = nn.Conv2d(num_in * patch**2, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(ResidualBlock(a + b, a, time) for a, b in zip(widths, extra))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.attention = _PixelAttention(widths[-1], num_heads)
        self.middle = ResidualBlock(widths[-1], widths[-1], time)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.up_blocks = nn.ModuleList(ResidualBlock(2 * width, width, time) for width in widths)
        self.out_norm, self.out = _norm(widths[0]), nn.Conv2d(widths[0], num_out * patch**2, 3, padding=1)

    def forward(self, picture: Tensor, time: Tensor | None = None, condition: Sequence[Tensor] = ()) -> Tensor:
        """Return ``[B, num_out, H, W]``.

        Args:
            picture: ``[B, num_in, H, W]``.
            time: Steps ``[B]``, where the network has a time.
            condition: Features for each scale, of the sizes that :class:`PictureEncoder` gives.
        """
        embedded = None
        if self.time is not None:
            assert time is not None, "this network was built with a time"
            embedded = self.time(embed_time(time, self.waves))
        states = self.stem(F.pixel_unshuffle(picture, self.patch))
        skipped = []
        for index, block in enumerate(self.down_blocks):
            states = block(torch.cat([states, condition[index]], dim=1) if condition else states, embedded)
            skipped.append(states)
            if index < len(self.down):
                states = self.down[index](states)
        states = self.middle(self.attention(states), embedded)
        for index in reversed(range(self.num_scales)):
            states = self.up_blocks[index](torch.cat([states, skipped[index]], dim=1), embedded)
            if index:
                # Nearest neighbours and a convolution afterwards: no checkerboard as of transposed convolutions.
                states = F.interpolate(self.up[index - 1](states), scale_factor=2, mode="nearest")
        return F.pixel_shuffle(self.out(F.silu(self.out_norm(states))), self.patch)


def _norm(width: int) -> nn.GroupNorm:
    # At most 8 groups, and a number that divides the width.
    return nn.GroupNorm(math.gcd(8, width), width)
