"""The own vision transformer with a class token: one learned token in front of the patches, whose last state is the feature.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929 (section 3.1). For methods that are
about the class token: prompts, lanes. Plans from scratch take :class:`~graftwork.nn.backbones.vit.ViTBackbone`, whose heads pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.interfaces.backbone import FeatureShape
from graftwork.nn.backbones.vit import ViTBackbone

__all__ = ["ClassTokenViT"]


class ClassTokenViT(ViTBackbone):
    """Input ``image`` uint8 ``[B, S, S, 3]`` to a vector ``[B, width]``.

    States are tokens ``[B, 1 + length, width]``, the class token first; :meth:`read_states` leaves it out.

    Args:
        image_size: Height and width ``S`` of the pictures in pixels.
        settings: Further arguments of :class:`~graftwork.nn.backbones.vit.ViTBackbone`, except ``feature_map``.

    Raises:
        ConfigError: If the picture does not divide into patches.
    """

    def __init__(self, image_size: int, **settings: Any) -> None:
        super().__init__(image_size, **settings)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, self.width))
        self.feature_shape = FeatureShape("vector", self.width)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return class token and patches, ``[B, 1 + length, width]``; the class token has no position but itself."""
        patches = super().embed(inputs)
        return torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)

    def read_states(self, number: int, states: Tensor) -> Tensor:
        """Return the tokens of the patches, ``[B, length, width]``."""
        return states[:, 1:]

    def finish(self, states: Tensor, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the normalised class token, ``[B, width]``."""
        return self.norm(states[:, 0])
