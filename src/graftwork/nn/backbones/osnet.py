"""OSNet: a small convolutional network whose blocks see several scales at once and weigh them by one shared gate.

Papers: Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019, https://arxiv.org/abs/1905.00953, and
"Learning Generalisable Omni-Scale Representations for Person Re-Identification", TPAMI 2021, https://arxiv.org/abs/1910.06827,
which adds instance norms (``placement``).

Names of the papers: ``T`` is ``streams``, the unified aggregation gate ``G`` is :class:`ChannelGate`, Lite 3x3 is
:class:`LiteConv`, the width multiplier is ``widths``. Departures: inputs are pictures of bytes, scaled to -1 to 1 here; a stem
for small pictures beside the paper's; the gate's hidden layer has at least one unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone, FeatureShape

__all__ = [
    "AIN",
    "ChannelGate",
    "FeatureLayer",
    "Fusion",
    "LiteConv",
    "OSBlock",
    "OSNet",
    "Placement",
    "Stem",
    "Transition",
    "conv_norm",
]

Placement = Literal["plain", "inside", "after", "both"]
"""Where a block has instance norms: none, in place of the last batch norm of the residual branch, after the sum, both."""
Fusion = Literal["gate", "sum", "concat"]
Stem = Literal["paper", "small"]
AIN: tuple[Placement, ...] = ("inside", "inside", "plain", "inside", "inside", "plain")
"""The placement that the authors' search found for two blocks a stage; it goes with ``stem_norm="instance"``."""
BOTTLENECK, GATE_REDUCTION = 4, 16


def conv_norm(width_in: int, width_out: int, kernel: int = 1, *, stride: int = 1, norm: str = "batch") -> nn.Sequential:
    """Return a convolution without bias that keeps the size up to ``stride``, and its norm (``batch``, ``instance``, ``none``)."""
    layers: list[nn.Module] = [nn.Conv2d(width_in, width_out, kernel, stride=stride, padding=kernel // 2, bias=False)]
    if norm != "none":
        layers.append(nn.InstanceNorm2d(width_out, affine=True) if norm == "instance" else nn.BatchNorm2d(width_out))
    return nn.Sequential(*layers)


class LiteConv(nn.Module):
    """Lite 3x3: a linear 1x1 convolution, a depth-wise 3x3 one, BatchNorm, ReLU; for several streams at a time.

    The streams of a block do not see each other, so that those of one depth are groups of one convolution: the same numbers as
    one after the other, at a fraction of the calls.

    Args:
        width: Channels of one stream.
        streams: Number of streams, side by side.
        shared_input: Whether all of them read the same ``width`` channels.
    """

    def __init__(self, width: int, streams: int = 1, *, shared_input: bool = False) -> None:
        super().__init__()
        total = width * streams
        self.point = nn.Conv2d(width if shared_input else total, total, 1, groups=1 if shared_input else streams, bias=False)
        self.depth = nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False)
        self.norm = nn.BatchNorm2d(total)
        self.width = width

    def reset(self) -> None:
        """Draw the weights anew, each stream's as if it were alone: Kaiming's normal distribution over its fan-out."""
        # Computed by hand: nn.init would take the fan-out of all streams together.
        nn.init.normal_(self.point.weight, std=math.sqrt(2.0 / self.width))
        nn.init.normal_(self.depth.weight, std=math.sqrt(2.0 / (9 * self.width)))

    def forward(self, state: Tensor) -> Tensor:
        """Return ``[B, streams * width, h, w]``."""
        return F.relu(self.norm(self.depth(self.point(state))))


class ChannelGate(nn.Module):
    """The unified aggregation gate: from the mean of each channel to a weight in (0, 1) for each channel, by a small network.

    One gate serves all streams of a block: its gradient gathers over them, and a gate for each stream is another model.

    Args:
        width: Channels.
        reduction: The hidden layer has ``width / reduction`` units, at least one.
    """

    def __init__(self, width: int, reduction: int = GATE_REDUCTION) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.reduce = nn.Conv2d(width, hidden, 1)
        self.expand = nn.Conv2d(hidden, width, 1)

    def forward(self, state: Tensor) -> Tensor:
        """Return the weights, ``[B, width, 1, 1]``."""
        return torch.sigmoid(self.expand(F.relu(self.reduce(state.mean(dim=(2, 3), keepdim=True)))))


class OSBlock(nn.Module):
    """Bottleneck block of several streams, the t-th with t Lite 3x3 layers, so that it sees 2t + 1 pixels square.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output, divisible by 4.
        streams: Number of streams (``T``).
        fusion: ``gate`` weighs the streams by one shared gate and adds them; ``sum`` adds them as they are; ``concat`` puts them
            side by side.
        placement: Where instance norms are.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(
        self, width_in: int, width_out: int, *, streams: int = 4, fusion: Fusion = "gate", placement: Placement = "plain"
    ) -> None:
        super().__init__()
        if width_out < BOTTLENECK or width_out % BOTTLENECK or streams < 1:
            raise ConfigError(
                f"A block needs an output width divisible by {BOTTLENECK} and a stream; got {width_out} and {streams}."
            )
        _check_choice("fusion", fusion, get_args(Fusion))
        _check_choice("placement", placement, get_args(Placement))
        width = width_out // BOTTLENECK
        self.fusion = fusion
        self.squeeze = conv_norm(width_in, width)
        # Layer d holds the d-th Lite 3x3 of all streams that have one: streams d to T.
        self.layers = nn.ModuleList(LiteConv(width, streams - depth, shared_input=depth == 0) for depth in range(streams))
        self.gate = ChannelGate(width) if fusion == "gate" else None
        inside = "instance" if placement in ("inside", "both") else "batch"
        self.merge = conv_norm(width * streams if fusion == "concat" else width, width_out, norm=inside)
        self.shortcut: nn.Module = conv_norm(width_in, width_out) if width_in != width_out else nn.Identity()
        self.after: nn.Module = nn.InstanceNorm2d(width_out, affine=True) if placement in ("after", "both") else nn.Identity()

    def forward(self, state: Tensor) -> Tensor:
        """Return ``[B, width_out, h, w]`` of a state ``[B, width_in, h, w]``."""
        scales = self.see(F.relu(self.squeeze(state)))
        if self.fusion == "concat":
            # [B, T * width, h, w]
            fused = scales.flatten(1, 2)
        else:
            fused = (scales if self.gate is None else scales * self.weigh(scales)).sum(dim=1)
        return F.relu(self.after(self.merge(fused) + self.shortcut(state)))

    def see(self, narrow: Tensor) -> Tensor:
        """Return what the streams make of ``[B, width, h, w]``: ``[B, T, width, h, w]``."""
        finished, waiting, width = [], narrow, narrow.shape[1]
        for layer in self.layers:
            waiting = layer(waiting)
            finished.append(waiting[:, :width])  # the first stream of a layer ends with it
            # The other streams go through one more layer each.
            waiting = waiting[:, width:]
        return torch.stack(finished, dim=1)

    def weigh(self, scales: Tensor) -> Tensor:
        """Return the gate's weights of the streams ``[B, T, width, h, w]``: ``[B, T, width, 1, 1]``."""
        assert self.gate is not None
        # Streams as rows of the batch, [B * T, width, h, w]: one gate with the same weights for all.
        return self.gate(scales.flatten(0, 1)).unflatten(0, (-1, scales.shape[1]))


class Transition(nn.Module):
    """What stands between two stages: a 1x1 convolution, BatchNorm, ReLU, and the mean of 2x2 places.

    Args:
        width: Channels of input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = conv_norm(width, width)

    def forward(self, state: Tensor) -> Tensor:
        """Return ``[B, width, h // 2, w // 2]`` of a state ``[B, width, h, w]``."""
        return F.avg_pool2d(F.relu(self.layers(state)), 2)


class FeatureLayer(nn.Sequential):
    """What turns pooled channels into the feature that pictures are compared by: linear, BatchNorm, ReLU.

    Args:
        width_in: Channels of the input ``[B, width_in]``.
        width_out: Length of the feature.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__(nn.Linear(width_in, width_out), nn.BatchNorm1d(width_out), nn.ReLU())


class OSNet(BlockBackbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to a vector of ``feature_width`` values, or to the last map.

    Blocks are those of three stages and the two transitions between them. Convolutions begin with Kaiming's normal distribution
    over the fan-out, the feature layer with a normal one of 0.01, drawn from torch's global generator.

    Args:
        widths: Channels of the stem and the three stages; the paper's x0.25 has 16, 64, 96, 128.
        depths: Blocks of each stage.
        placement: Where instance norms are, for all blocks or for each; :data:`AIN` is the published one.
        stem: ``paper`` is a 7x7 convolution of stride 2 and a 3x3 maximum of stride 2 (pictures of 256x128); ``small`` is a 3x3
            convolution of stride 2 (pictures of 32 to 64 pixels).
        stem_norm: ``batch`` or ``instance``.
        streams: Streams of a block (``T``).
        fusion: How the streams of a block are put together; see :class:`OSBlock`.
        feature_width: Length of the feature; 0 leaves the feature layer out.
        feature_map: Return the last map ``[B, widths[-1], h, w]``, for tasks with one prediction per pixel.

    Raises:
        ConfigError: If an argument is out of range.

    Example:
        >>> trunk = OSNet()
        >>> sum(parameter.numel() for parameter in trunk.parameters())
        2193616
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (64, 256, 384, 512),
        depths: Sequence[int] = (2, 2, 2),
        placement: Placement | Sequence[Placement] = "plain",
        stem: Stem = "paper",
        stem_norm: Literal["batch", "instance"] = "batch",
        streams: int = 4,
        fusion: Fusion = "gate",
        feature_width: int = 512,
        feature_map: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or len(depths) != 3 or min(*widths, *depths) < 1 or feature_width < 0:
            raise ConfigError(
                "`widths` are four numbers (stem and three stages), `depths` three (blocks of each stage), all at least 1, and "
                f"`feature_width` is at least 0; got {list(widths)}, {list(depths)} and {feature_width!r}."
            )
        _check_choice("stem", stem, get_args(Stem))
        _check_choice("stem_norm", stem_norm, ("batch", "instance"))
        placements = [placement] * sum(depths) if isinstance(placement, str) else list(placement)
        if len(placements) != sum(depths):
            raise ConfigError(f"`placement` is one word or one for each of the {sum(depths)} blocks; got {placements}.")
        self.pools, self.feature_map = stem == "paper", feature_map
        self.stem = conv_norm(3, widths[0], 7 if self.pools else 3, stride=2, norm=stem_norm)
        self.blocks = nn.ModuleList()
        self._widths: list[int] = []
        width, waiting = widths[0], iter(placements)
        for stage, (width_out, depth) in enumerate(zip(widths[1:], depths, strict=True)):
            if stage:
                self._add(Transition(width), width)
            for _ in range(depth):
                self._add(self.make_block(width, width_out, placement=next(waiting), streams=streams, fusion=fusion), width_out)
                width = width_out
        self.last = conv_norm(width, width)
        self.feature = FeatureLayer(width, feature_width) if feature_width and not feature_map else nn.Identity()
        self.feature_shape = FeatureShape("map" if feature_map else "vector", width if feature_map else feature_width or width)
        _draw(self)

    def _add(self, block: nn.Module, width: int) -> None:
        self.blocks.append(block)
        self._widths.append(width)

    def make_block(self, width_in: int, width_out: int, **settings: Any) -> nn.Module:
        """Return a block; the searchable network makes another kind."""
        return OSBlock(width_in, width_out, **settings)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the stem's map, ``[B, widths[0], h, w]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(next(self.stem.parameters()).dtype) / 127.5 - 1.0
        state = F.relu(self.stem(picture))
        return F.max_pool2d(state, 3, stride=2, padding=1) if self.pools else state

    def block_list(self) -> Sequence[nn.Module]:
        """Return blocks and transitions."""
        return list(self.blocks)

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features."""
        state = F.relu(self.last(states))
        return state if self.feature_map else self.feature(state.mean(dim=(2, 3)))

    def block_shapes(self) -> list[FeatureShape]:
        """Return maps; their extent depends on the pictures."""
        return [FeatureShape("map", width) for width in self._widths]


def _draw(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        # A second pass: the first one has drawn the convolutions inside, as if all streams were one.
        if isinstance(module, LiteConv):
            module.reset()


def _check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigError(f"`{name}` must be one of {', '.join(allowed)}; got {value!r}.")
