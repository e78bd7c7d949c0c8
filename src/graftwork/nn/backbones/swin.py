"""Swin: a hierarchical transformer with attention inside windows that shift from block to block.

Paper: Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021,
https://arxiv.org/abs/2103.14030 (section 3). Departures: widths of stages are free (the paper doubles them); no stochastic
depth. Blocks are laid out in parts (mix, project, feed), so that sharing operators can fork inside a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape

__all__ = ["PatchMerging", "SwinBackbone", "SwinBlock", "SwinStage"]

BLOCKED = -100.0
"""Added to the score of a pair that may not see each other, as in the released Swin."""


class SwinBlock(nn.Module):
    """Windowed attention and a feed-forward network, pre-norm, each with a shortcut; states are ``[B, S, S, width]``.

    Args:
        width: Channels, divisible by ``num_heads``.
        num_heads: Attention heads.
        side: Height and width ``S`` of the map.
        window: Side of a window; a smaller map is one window. Maps that do not divide are padded with zeros below and to the
            right.
        shift: How far windows are moved against the grid; 0 where the map is one window.
        expansion: Hidden width of the feed-forward network over ``width``.
    """

    mask: Tensor | None
    pairs: Tensor

    def __init__(self, width: int, num_heads: int, side: int, *, window: int, shift: int, expansion: float = 4.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"`widths` must be divisible by `num_heads`; got {width} and {num_heads}.")
        self.side, self.num_heads = side, num_heads
        # A map that is one window has nothing to shift: all its places see each other.
        self.window, self.shift = (side, 0) if side <= window else (window, shift)
        # What is missing to the next multiple of the window.
        self.pad = -side % self.window
        self.attention_norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.empty((2 * self.window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)
        self.feed_norm = nn.LayerNorm(width)
        hidden = int(width * expansion)
        self.expand = nn.Linear(width, hidden)
        self.contract = nn.Linear(hidden, width)
        self.feed_forward: nn.Module | None = None
        self.register_buffer("pairs", _pair_index(self.window), persistent=False)
        # Padded places are not masked, as in timm: they are zeros, put in after the norm.
        mask = _shift_mask(side + self.pad, self.window, self.shift) if self.shift else None
        self.register_buffer("mask", mask, persistent=False)

    def mix(self, states: Tensor) -> Tensor:
        """Return what attention gathers for every place before the output projection, ``[B, S, S, width]``, from normalised
        states."""
        if self.shift:
            states = torch.roll(states, (-self.shift, -self.shift), dims=(1, 2))
        if self.pad:
            # F.pad counts dimensions from the last: width untouched, then columns, then rows.
            states = F.pad(states, (0, 0, 0, self.pad, 0, self.pad))
        count, width = (self.side + self.pad) // self.window, states.shape[-1]
        # [B, rows of windows, columns of windows, window, window, width]
        windows = states.unflatten(2, (count, self.window)).unflatten(1, (count, self.window)).transpose(2, 3)
        windows = windows.flatten(3, 4).flatten(1, 2)  # [B, windows, places, width]
        # [3, B, windows, heads, places, width of a head]
        projected = self.project(windows).unflatten(-1, (3, self.num_heads, width // self.num_heads)).permute(3, 0, 1, 4, 2, 5)
        query, key, value = projected[0], projected[1], projected[2]
        scores = (query * (width // self.num_heads) ** -0.5) @ key.transpose(-1, -2) + self._bias()
        if self.mask is not None:
            # [windows, 1, places, places]: one mask for all heads.
            scores = scores + self.mask.unsqueeze(1)
        # Heads side by side again, then windows back to where they were: [B, S + pad, S + pad, width].
        mixed = (scores.softmax(dim=-1) @ value).transpose(2, 3).flatten(3)
        mixed = mixed.unflatten(2, (self.window, self.window)).unflatten(1, (count, count)).transpose(2, 3)
        mixed = mixed.flatten(3, 4).flatten(1, 2)
        if self.pad:
            mixed = mixed[:, : self.side, : self.side]
        return torch.roll(mixed, (self.shift, self.shift), dims=(1, 2)) if self.shift else mixed

    def _bias(self) -> Tensor:
        """Return the bias of every pair of places of a window, ``[heads, places, places]``."""
        places = self.window**2
        return self.position_bias[self.pairs].unflatten(0, (places, places)).permute(2, 0, 1)

    def take_feed_forward(self, layer: nn.Module) -> None:
        """Put a module into the place of the feed-forward network."""
        self.feed_forward = layer
        self.expand = self.contract = nn.Identity()  # type: ignore[assignment]

    def forward(self, states: Tensor) -> Tensor:
        """Return the new states, ``[B, S, S, width]``."""
        states = states + self.output(self.mix(self.attention_norm(states)))
        normed = self.feed_norm(states)
        if self.feed_forward is not None:
            return states + self.feed_forward(normed)
        return states + self.contract(F.gelu(self.expand(normed)))


class PatchMerging(nn.Module):
    """Four neighbours become one: ``[B, S, S, width]`` to ``[B, ceil(S / 2), ceil(S / 2), width_out]``."""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, width_out, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return the merged states."""
        odd = states.shape[1] % 2
        if odd:
            states = F.pad(states, (0, 0, 0, odd, 0, odd))
        rows = states.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [B, S/2, row, S/2, column, width]
        # The order of the four neighbours is timm's (columns outside, rows inside), so that its weights fit.
        return self.reduction(self.norm(rows.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinStage(nn.Module):
    """The blocks of one scale and the merging that ends it (None in the last stage)."""

    def __init__(self, blocks: Sequence[SwinBlock], merge: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.merge = merge

    def forward(self, states: Tensor) -> Tensor:
        """Return the states after the merging."""
        for block in self.blocks:
            states = block(states)
        return states if self.merge is None else self.merge(states)


class SwinBackbone(BlockBackbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` of any ``S`` to a vector ``[B, widths[-1]]`` or the last map ``[B, widths[-1], s,
    s]``.

    Pictures are scaled to 0..1, resized bilinearly to ``size`` if they have another one, and normalised, all inside the graph.

    Args:
        size: Working height and width in pixels, divisible by ``patch``.
        patch: Height and width of a patch in pixels.
        widths: Channels of each stage.
        depths: Blocks of each stage; every second block shifts its windows by half a window.
        num_heads: Attention heads of each stage.
        window: Side of a window in patches.
        expansion: Hidden width of the feed-forward networks over the stage's width.
        feature_map: Return the last map in place of its mean.
        mean: Mean of each colour channel that the weights expect, for values in 0..1.
        std: Standard deviation likewise.

    Raises:
        ConfigError: If the numbers do not fit each other.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int,
        *,
        patch: int = 2,
        widths: Sequence[int] = (32, 64, 128, 128),
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (2, 4, 4, 4),
        window: int = 4,
        expansion: float = 4.0,
        feature_map: bool = False,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        super().__init__()
        if size % patch or not len(widths) == len(depths) == len(num_heads) or not widths or window < 1:
            raise ConfigError(
                "A Swin needs a `size` divisible by `patch`, as many `widths` as `depths` and `num_heads`, and a `window` "
                f"of at least 1; got {size} and {patch}, {list(widths)}, {list(depths)}, {list(num_heads)} and {window}."
            )
        self.size, self.feature_map, self.widths = size, feature_map, tuple(widths)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.patches = nn.Conv2d(3, widths[0], patch, stride=patch)
        self.patch_norm = nn.LayerNorm(widths[0])
        side, stages = size // patch, []
        for index, (width, depth, heads) in enumerate(zip(widths, depths, num_heads, strict=True)):
            blocks = [
                SwinBlock(width, heads, side, window=window, shift=(number % 2) * (window // 2), expansion=expansion)
                for number in range(depth)
            ]
            is_last = index == len(widths) - 1
            stages.append(SwinStage(blocks, None if is_last else PatchMerging(width, widths[index + 1])))
            # Rounded up: an odd map is padded before merging.
            side = side if is_last else -(-side // 2)
        self._stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(widths[-1])
        self.feature_shape = FeatureShape("map", widths[-1], (side, side)) if feature_map else FeatureShape("vector", widths[-1])

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return normalised patches, ``[B, S / patch, S / patch, widths[0]]``."""
        picture = inputs["image"].to(self.mean.dtype) / 255.0
        picture = ((picture - self.mean) / self.std).permute(0, 3, 1, 2)
        if tuple(picture.shape[-2:]) != (self.size, self.size):
            picture = F.interpolate(picture, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.patch_norm(self.patches(picture).permute(0, 2, 3, 1))

    def stages(self) -> list[SwinStage]:
        """Return the stages in order: the depths that can be tapped, forked or replaced."""
        return [stage for stage in self._stages if isinstance(stage, SwinStage)]

    def block_list(self) -> list[nn.Module]:
        """Return blocks and mergings in the order in which they run."""
        parts = [[*stage.blocks, stage.merge] for stage in self.stages()]
        return [part for stage in parts for part in stage if part is not None]

    def block_shapes(self) -> list[FeatureShape]:
        """Return maps, of the size and width after each block."""
        shapes = []
        for stage, width in zip(self.stages(), self.widths, strict=True):
            side = next(block.side for block in stage.blocks if isinstance(block, SwinBlock))
            shapes += [FeatureShape("map", width, (side, side))] * len(stage.blocks)
            if stage.merge is not None:
                shapes.append(FeatureShape("map", stage.merge.reduction.out_features, (-(-side // 2), -(-side // 2))))
        return shapes

    def read_states(self, number: int, states: Tensor) -> Tensor:
        """Return a map, ``[B, width, s, s]``."""
        return states.permute(0, 3, 1, 2)

    def final_norm(self, states: Tensor) -> Tensor:
        """Return normalised states."""
        normed: Tensor = self.norm(states)
        return normed

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says; the inputs are not needed."""
        states = self.final_norm(states)
        return states.permute(0, 3, 1, 2) if self.feature_map else states.mean(dim=(1, 2))


def _pair_index(window: int) -> Tensor:
    """Return the row of the bias table for every pair of places (query, key) of a window, flat, int64 ``[places ** 2]``."""
    places = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    # Differences of rows and of columns, from 0 to 2 * window - 2.
    offset = places.unsqueeze(1) - places.unsqueeze(0) + window - 1
    return (offset[..., 0] * (2 * window - 1) + offset[..., 1]).flatten()


def _shift_mask(side: int, window: int, shift: int) -> Tensor:
    """Return what keeps places apart that shifting brought into one window from opposite ends, ``[windows, places, places]``."""
    band = torch.zeros(side, dtype=torch.long)
    # After the shift the last window of each axis holds places from both ends, 1 and 2, which are no neighbours.
    band[side - window :] = 1
    band[side - shift :] = 2
    region = 3 * band.unsqueeze(1) + band
    count = side // window
    windows = region.view(count, window, count, window).transpose(1, 2).reshape(count**2, window**2)
    return (windows.unsqueeze(1) != windows.unsqueeze(2)).float() * BLOCKED
