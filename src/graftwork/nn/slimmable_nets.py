"""Slimmable encoders and decoders: whole sub-networks with one width each, made of the layers of
:mod:`graftwork.nn.slimmable`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs, input_of_kind
from graftwork.core.records import TaskSpec
from graftwork.nn.backbones.cnn import shrink_factor
from graftwork.nn.slimmable import NormKind, Slimmable, SlimmableConv2d, SlimmableLinear, SwitchableNorm
from graftwork.nn.tokenizer import FeatureTokenizer

__all__ = ["ConvEncoder", "DenseDecoder", "GlobalDecoder", "TableEncoder", "build_encoder", "set_width"]


def set_width(module: nn.Module, ratio: float) -> None:
    """Set all slimmable layers inside a module to one width."""
    for part in module.modules():
        if isinstance(part, Slimmable):
            part.set_active_width(ratio)


class ConvEncoder(nn.Module):
    """Pictures to a feature map: convolution, norm and ReLU in stages.

    Pictures of 48 pixels and more are averaged down first, as in :class:`~graftwork.nn.backbones.cnn.ConvBackbone`.

    Args:
        image_size: Height and width ``S`` of the pictures in pixels.
        ratios: Widths that there are.
        channels: Full channels of the stages.
        strides: Strides of the stages.
        norm: Kind of the norms.
    """

    def __init__(
        self,
        image_size: int,
        ratios: Sequence[float],
        *,
        channels: Sequence[int] = (16, 32, 64, 64),
        strides: Sequence[int] = (1, 2, 1, 2),
        norm: NormKind = "group",
    ) -> None:
        super().__init__()
        if len(channels) != len(strides) or not channels:
            raise ConfigError(f"Stages need channels and a stride each; got {list(channels)} and {list(strides)}.")
        self.factor = shrink_factor(image_size)
        self.width = channels[-1]
        stages, width_in = [], 3
        for index, (width, stride) in enumerate(zip(channels, strides, strict=True)):
            # Without bias: the norm behind it has a shift. The picture's three channels are never slim.
            conv = SlimmableConv2d(width_in, width, 3, stride=stride, padding=1, bias=False, slim_in=index > 0)
            stages.append(nn.Sequential(conv, SwitchableNorm(width, ratios, kind=norm), nn.ReLU()))
            width_in = width
        self.stages = nn.Sequential(*stages)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[B, width, h, w]`` from ``image`` uint8 ``[B, S, S, 3]``."""
        picture = inputs["image"].permute(0, 3, 1, 2).to(torch.get_default_dtype())
        if self.factor > 1:
            picture = F.avg_pool2d(picture, self.factor)
        features: Tensor = self.stages(picture / 127.5 - 1.0)
        return features


class TableEncoder(nn.Module):
    """Tables to a feature vector: every cell a small vector, then linear layers with layer norm and ReLU.

    Args:
        num_numeric: Number of numeric columns.
        cardinalities: Number of codes of each categorical column.
        ratios: Widths that there are.
        widths: Full widths of the layers.
        cell: Width of a cell's vector.
    """

    def __init__(
        self,
        num_numeric: int,
        cardinalities: Sequence[int],
        ratios: Sequence[float],
        *,
        widths: Sequence[int] = (128, 128, 128),
        cell: int = 8,
    ) -> None:
        super().__init__()
        self.width = widths[-1]
        self.tokenizer = FeatureTokenizer(num_numeric, cardinalities, cell, std=0.5)
        layers: list[nn.Module] = []
        width_in = self.tokenizer.num_tokens * cell
        for index, width in enumerate(widths):
            layers += [
                SlimmableLinear(width_in, width, slim_in=index > 0),
                SwitchableNorm(width, ratios, kind="layer"),
                nn.ReLU(),
            ]
            width_in = width
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[B, width]`` from ``numeric`` ``[B, F]`` and ``categorical`` ``[B, C]``."""
        # One absurd cell must not own the row.
        cells = self.tokenizer(inputs["numeric"].clamp(-10.0, 10.0), inputs["categorical"])
        features: Tensor = self.layers(cells.flatten(1))
        return features


class GlobalDecoder(nn.Module):
    """Features to one prediction a row: mean and maximum over the map, a hidden layer of slimmable width, the outputs.

    Args:
        width_in: Full width of the features.
        task: The task.
        ratios: Widths that there are.
        width: Full width of the hidden layer.
        is_map: Whether the features are a map, not a vector.
    """

    def __init__(self, width_in: int, task: TaskSpec, ratios: Sequence[float], *, width: int = 64, is_map: bool = True) -> None:
        super().__init__()
        # A layer each for mean and maximum: side by side, the leading channels would not be nested.
        self.from_mean = SlimmableLinear(width_in, width)
        self.from_maximum = SlimmableLinear(width_in, width, bias=False) if is_map else None
        self.norm = SwitchableNorm(width, ratios, kind="layer")
        self.output = SlimmableLinear(width, task.num_outputs, slim_out=False)

    def set_width(self, ratio: float, in_ratio: float) -> None:
        """Set the decoder's width and that of the features it reads."""
        set_width(self, ratio)
        self.from_mean.set_active_width(ratio, in_ratio)
        if self.from_maximum is not None:
            self.from_maximum.set_active_width(ratio, in_ratio)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw outputs, ``[B, num_outputs]``."""
        if self.from_maximum is None:
            state = self.from_mean(features)
        else:
            state = self.from_mean(features.mean(dim=(2, 3))) + self.from_maximum(features.amax(dim=(2, 3)))
        outputs: Tensor = self.output(torch.relu(self.norm(state)))
        return outputs


class DenseDecoder(nn.Module):
    """A feature map to one prediction a pixel: two convolutions with an upsampling between them, and outputs for four pixels at
    a time.

    The last convolution works at half the target's size and predicts squares of two by two pixels (Shi et al., "Real-Time Single
    Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016): a quarter of the
    operations.

    Args:
        width_in: Full channels of the features.
        task: The task.
        ratios: Widths that there are.
        size: Height and width of the target in pixels.
        width: Full channels of the decoder.
        norm: Kind of the norms.
    """

    def __init__(
        self,
        width_in: int,
        task: TaskSpec,
        ratios: Sequence[float],
        size: tuple[int, int],
        *,
        width: int = 32,
        norm: NormKind = "group",
    ) -> None:
        super().__init__()
        self.size = size
        self.working_size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        self.first = SlimmableConv2d(width_in, width, 3, padding=1, bias=False)
        self.first_norm = SwitchableNorm(width, ratios, kind=norm)
        self.second = SlimmableConv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = SwitchableNorm(width, ratios, kind=norm)
        self.output = SlimmableConv2d(width, 4 * task.num_outputs, 3, padding=1, slim_out=False)

    def set_width(self, ratio: float, in_ratio: float) -> None:
        """Set the decoder's width and that of the features it reads."""
        set_width(self, ratio)
        self.first.set_active_width(ratio, in_ratio)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw outputs, ``[B, num_outputs, H, W]``, from features ``[B, width_in, h, w]``."""
        state = torch.relu(self.first_norm(self.first(features)))
        state = F.interpolate(state, size=self.working_size, mode="bilinear", align_corners=False)
        # [B, 4 * num_outputs, H / 2, W / 2] to [B, num_outputs, H, W]
        outputs = F.pixel_shuffle(self.output(torch.relu(self.second_norm(self.second(state)))), 2)
        return (
            # An odd side was rounded up by half a square: one row or column is too much.
            outputs[..., : self.size[0], : self.size[1]]
            if self.size != (2 * self.working_size[0], 2 * self.working_size[1])
            else outputs
        )


def build_encoder(inputs: InputSpecs, ratios: Sequence[float], **settings: Any) -> ConvEncoder | TableEncoder:
    """Return the encoder for a suite's inputs.

    Args:
        inputs: The suite's inputs: pictures, or a table.
        ratios: Widths that there are.
        settings: Further arguments of the encoder.

    Raises:
        ConfigError: If the inputs are neither pictures nor a table, or there are several.
    """
    if [spec.kind for spec in inputs.values()] == ["image"]:
        return ConvEncoder(int(next(iter(inputs.values())).sizes["image_size"]), ratios, **settings)
    sizes = input_of_kind(inputs, "table", needed_by="A slimmable encoder for anything but pictures").sizes
    return TableEncoder(int(sizes["num_numeric"]), tuple(sizes.get("cardinalities", ())), ratios, **settings)
