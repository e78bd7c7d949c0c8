"""Image backbones of timm, and of weights in timm's layout, behind the Backbone seam."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.backbones.depths import DepthReader, pool_depths, spread_depths
from graftwork.nn.backbones.resizable import Resizable
from graftwork.nn.modes import evaluating

__all__ = ["TimmBackbone"]


class TimmBackbone(Backbone, Resizable, DepthReader):
    """A timm model without its classifier. Takes ``inputs["image"]``, uint8 (or float 0..255) ``[B, S, S, 3]``, any ``S``.

    Pictures are scaled to 0..1, resized bilinearly to ``size`` and normalised, all inside the graph.

    Args:
        model: A model built with ``num_classes=0``.
        size: Working resolution in pixels.
        mean: Mean of each colour channel that the weights expect, for values in 0..1.
        std: Standard deviation likewise.
        layout: ``"vector"`` pools over the picture, ``[B, width]``; ``"map"`` keeps the last feature map, ``[B, width, h, w]``,
            for tasks with a prediction per pixel.
        channels_last: Memory layout with channels innermost; about a third faster for convolutions on CPUs.

    Raises:
        ConfigError: If the size is below 32 pixels, or the model has no feature map to return.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        size: int,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        layout: Literal["vector", "map"] = "vector",
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.layout, self.channels_last = layout, channels_last
        self.depths: list[int] = []
        """Stages (blocks of a transformer) whose pooled states stand behind the features; see :meth:`read_depths`."""
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).reshape(1, -1, 1, 1), persistent=False)
        if channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.set_working_size(size)

    def set_working_size(self, size: int) -> None:
        """Change the working resolution, and with it the extent of ``feature_shape`` for maps.

        Raises:
            ConfigError: If it is below 32 pixels, or the weights hold position embeddings of another size.
        """
        if size < 32:
            raise ConfigError(f"The working size of an image backbone must be at least 32 pixels; got {size}.")
        # Set before measuring, since `prepare` resizes to it; put back if the model refuses.
        before, self.size = getattr(self, "size", size), size
        try:
            self.feature_shape = self._measure()
        except (AssertionError, RuntimeError) as error:
            self.size = before
            raise ConfigError(
                f"This backbone cannot work at {size} pixels ({str(error)[:200]}). Name its size when it is "
                f"built: timm:NAME@{size}."
            ) from error

    def prepare(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the pictures as the model takes them: resized and normalised, float ``[B, 3, size, size]``."""
        pictures = inputs["image"].permute(0, 3, 1, 2).to(self.mean.dtype) / 255.0
        if pictures.shape[-1] != self.size or pictures.shape[-2] != self.size:
            pictures = functional.interpolate(pictures, size=(self.size, self.size), mode="bilinear", align_corners=False)
        pictures = (pictures - self.mean) / self.std
        if self.channels_last and not torch.compiler.is_compiling():
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        return pictures

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return features ``[B, width]`` or ``[B, width, h, w]``, as ``layout`` says."""
        pictures = self.prepare(inputs)
        if not self.depths:
            return self.arrange(self.model.forward_features(pictures))
        last, maps = self.model.forward_intermediates(pictures, indices=self.depths, output_fmt="NCHW")
        # The picture itself is the first depth: its colours.
        return torch.cat([self.arrange(last), pool_depths([pictures, *maps])], dim=1)

    def read_depths(self) -> bool:
        """Put mean and deviation of the picture and of at most five stages behind the features of layout ``"vector"``."""
        known = getattr(self.model, "feature_info", ())
        stages = len(getattr(known, "info", known))  # timm keeps a list, or an object around it
        if self.layout != "vector" or not stages or not hasattr(self.model, "forward_intermediates"):
            return False
        self.depths = spread_depths(stages)
        self.feature_shape = self._measure()
        return True

    def arrange(self, features: Tensor) -> Tensor:
        """Return what the model's ``forward_features`` gives as ``layout`` says."""
        if self.layout == "vector":
            return self.model.forward_head(features, pre_logits=True)
        # Some timm models (Swin, for one) keep channels last and say so here.
        return features.permute(0, 3, 1, 2) if getattr(self.model, "output_fmt", "") == "NHWC" else features

    def fingerprint(self) -> str:
        """Return the SHA-256 of weights and of the settings that change the features: size, normalisation, layout."""
        # Buffers of mean and deviation are not in the state dict, but features depend on them.
        settings: tuple[object, ...] = (self.size, self.layout, self.mean.flatten().tolist(), self.std.flatten().tolist())
        settings += (self.depths,) if self.depths else ()
        return hashlib.sha256(f"{super().fingerprint()}{settings}".encode()).hexdigest()

    def _measure(self) -> FeatureShape:
        with evaluating(self.model), torch.no_grad():
            features = self({"image": torch.zeros(1, self.size, self.size, 3, device=self.mean.device)})
        if self.layout == "map" and features.ndim != 4:
            raise ConfigError(
                f"This backbone has no feature map (its features have {features.ndim} dimensions); tasks with a prediction "
                "per pixel need one. Choose a convolutional backbone."
            )
        if features.ndim == 4:
            return FeatureShape("map", int(features.shape[1]), (int(features.shape[2]), int(features.shape[3])))
        return FeatureShape("vector", int(features.shape[1]))
