"""Heads: from shared features to the outputs of one task, for every feature layout and task kind."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpecs
from graftwork.core.records import TaskSpec
from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.mlp import mlp

__all__ = ["DenseHead", "GlobalHead", "PositionHead", "build_head", "output_size"]


class GlobalHead(nn.Module):
    """One prediction per row: pool if needed, normalise, a small MLP.

    Maps are pooled by mean and maximum (mean keeps area and colour, maximum keeps rare evidence), tokens by their mean.

    Args:
        shape: Layout of the features.
        num_outputs: Width of the result.
        hidden: Width of the hidden layer; 0 gives a linear head.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, shape: FeatureShape, num_outputs: int, *, hidden: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.layout = shape.layout
        width = shape.width * 2 if shape.layout == "map" else shape.width
        self.norm = nn.LayerNorm(width)
        self.layers = mlp([width, hidden, num_outputs] if hidden else [width, num_outputs], dropout=dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw outputs, ``[B, num_outputs]``."""
        if self.layout == "map":
            features = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        elif self.layout == "tokens":
            features = features.mean(dim=1)
        return self.layers(self.norm(features))


class DenseHead(nn.Module):
    """One prediction per pixel: convolution, bilinear upsampling to the target's size, two convolutions; GELU, so smooth
    throughout.

    Args:
        width: Channels of the feature map.
        num_outputs: Channels of the result.
        size: Height and width of the result in pixels.
        hidden: Channels in between.
    """

    def __init__(self, width: int, num_outputs: int, size: tuple[int, int], *, hidden: int = 32) -> None:
        super().__init__()
        self.size = size
        self.before = nn.Conv2d(width, hidden, 3, padding=1)
        self.after = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.output = nn.Conv2d(hidden, num_outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw outputs, ``[B, num_outputs, height, width]``, from features ``[B, width, h, w]``."""
        state = F.gelu(self.before(features))
        state = F.interpolate(state, size=self.size, mode="bilinear", align_corners=False)
        return self.output(F.gelu(self.after(state)))


class PositionHead(nn.Module):
    """One prediction for each token, for tasks over points, steps or nodes: normalise, a small MLP, the same for all tokens.

    Args:
        width: Width of the features.
        num_outputs: Numbers that each token gets.
        hidden: Width of the hidden layer; 0 gives a linear head.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(self, width: int, num_outputs: int, *, hidden: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = mlp([width, hidden, num_outputs] if hidden else [width, num_outputs], dropout=dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Return raw outputs, ``[B, num_outputs, T]``, from features ``[B, T, width]``."""
        outputs: Tensor = self.layers(self.norm(features))
        # Outputs before positions, as for pixels: losses and decoders treat both alike.
        return outputs.movedim(-1, 1)


def output_size(inputs: InputSpecs) -> tuple[int, int] | None:
    """Return height and width of targets over pixels: the size of the suite's pictures; None if it has none."""
    sizes = [int(spec.sizes["image_size"]) for spec in inputs.values() if "image_size" in spec.sizes]
    return (sizes[0], sizes[0]) if sizes else None


def build_head(
    feature_shape: FeatureShape,
    task: TaskSpec,
    *,
    hidden: int | None = None,
    dropout: float = 0.0,
    size: tuple[int, int] | None = None,
) -> nn.Module:
    """Return a head from features of ``feature_shape`` to ``task.num_outputs`` outputs.

    Args:
        feature_shape: Layout of the features.
        task: The task.
        hidden: Width of the hidden layer, 0 for a linear head; None takes 64 (32 channels for dense tasks).
        dropout: Probability of dropping a hidden unit, for tasks with one prediction a row.
        size: Height and width of a dense target (see :func:`output_size`).

    Raises:
        ConfigError: If a task over pixels meets features that are no map, or ``size`` is missing; if a task over other positions
            meets features that are no tokens.
    """
    if not task.is_dense:
        return GlobalHead(feature_shape, task.num_outputs, hidden=64 if hidden is None else hidden, dropout=dropout)
    if task.positions != "pixels":
        if feature_shape.layout != "tokens":
            raise ConfigError(
                f"Task {task.name!r} asks for one prediction for each of its {task.positions}, but the backbone gives "
                f"{feature_shape.layout!r} features. Choose a backbone that gives 'tokens', one for each of them."
            )
        return PositionHead(feature_shape.width, task.num_outputs, hidden=64 if hidden is None else hidden, dropout=dropout)
    if feature_shape.layout != "map":
        raise ConfigError(
            f"Task {task.name!r} asks for one prediction per pixel, but the backbone gives {feature_shape.layout!r} features. "
            "Choose a backbone or sharing method whose features are a 'map'."
        )
    if size is None:
        raise ConfigError(f"Task {task.name!r} asks for one prediction per pixel, but no input of the suite is a picture.")
    # 0 takes the default as well: there is no linear head over pixels.
    return DenseHead(feature_shape.width, task.num_outputs, size, hidden=hidden if hidden else 32)
