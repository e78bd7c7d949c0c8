"""Backbone: inputs in, shared features out, with declared shapes.

How the hardest systems fit:

- M3ViT and Mod-Squad style experts replace layers *inside* the blocks of the own vision transformer, whose forward pass is
  ``finish(blocks(embed(inputs)))``: the operator tells its routed layers the task and walks through the blocks itself.
- TaskExpert and MTLoRA read several depths: they walk through the blocks of the own vision transformer and the stages of the own Swin (or timm's, converted).
- ECMT's trunk is no backbone: its slimmable layers change width by state (``set_active_width``), and the operator builds them itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from graftwork.math.fingerprint import state_fingerprint

__all__ = ["Backbone", "FeatureShape"]


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """Declared layout of a backbone's features."""

    layout: Literal["vector", "tokens", "map"]
    """``vector`` is ``[B, width]``, ``tokens`` ``[B, length, width]``, ``map`` ``[B, width, height, breadth]``."""
    width: int
    """Number of channels."""
    extent: tuple[int, ...] = ()
    """``(length,)`` for tokens, ``(height, breadth)`` for maps; empty for vectors or where it depends on the input."""


class Backbone(nn.Module, ABC):
    """A trunk whose features all tasks share. Sharing operators, heads and tuners see only this."""

    feature_shape: FeatureShape
    """Set by the constructor."""

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features of a batch, laid out as :attr:`feature_shape` says.

        Args:
            inputs: Named inputs of :class:`graftwork.data.suite.Suite`. A backbone normalises and resizes by itself,
                inside the graph, so that the exported model takes the same inputs.
        """

    def fingerprint(self) -> str:
        """Return a SHA-256 over names, shapes and values of all parameters and buffers."""
        return state_fingerprint(self.state_dict())
