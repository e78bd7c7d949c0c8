"""Backbone: inputs in, shared features out, with declared shapes.

How the hardest systems fit:

- M3ViT and Mod-Squad style experts replace layers *inside* the trunk: the backbone keeps its contract, and the task that is routed for
  reaches its layers through the sharing operator, which owns the routed blocks and calls the trunk stage by stage.
- TaskExpert and MTLoRA read several depths: a backbone that can be tapped offers ``stages()``, an ordered list of sub-modules, and taps
  are forward hooks set in one place (``nn.taps``); the contract of ``forward`` does not grow.
- ECMT's slimmable trunk changes width per call: width is state of the module (``set_active_width``), not an argument, and
  ``feature_shape`` states the full width.
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
