"""How the nursery's transformer reads patches of 8 pixels: the first three stages of EfficientNet-Lite0, norms folded in.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929, section 3.1: the hybrid architecture,
whose tokens are the places of a feature map.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from graftwork.nn.backbones.lite_stages import LiteStages

__all__ = ["PATCH", "PatchReader"]

PATCH = 8
"""Height and width of a patch in pixels."""
_STAGES = 3


class PatchReader(nn.Module):
    """Pictures ``[B, 3, S, S]`` in [-1, 1] to one token a patch, ``[B, (S / 8)^2, width]``, row by row.

    Args:
        width: Width of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = LiteStages(_STAGES, norms=False)
        self.norm = nn.LayerNorm(self.stages.widths[-1])
        self.project = nn.Linear(self.stages.widths[-1], width)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the tokens."""
        tokens: Tensor = self.project(self.norm(self.stages(pictures).flatten(2).transpose(1, 2)))
        return tokens

    def begin_from(self, network: Any) -> None:
        """Take over the stages of timm's ``tf_efficientnet_lite0``."""
        self.stages.begin_from(network)
