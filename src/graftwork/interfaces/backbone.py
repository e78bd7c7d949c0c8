"""Backbone: inputs in, shared features out, with declared shapes. BlockBackbone: one whose blocks can be walked through and
tapped.

How the hardest systems fit:

- M3ViT and Mod-Squad style experts replace layers *inside* the blocks of any trunk that has some
  (:mod:`graftwork.nn.block_parts` knows where blocks keep them), and walk through the blocks themselves, once a task.
- TaskExpert reads several depths of equal width and size: it walks through the blocks of a vision transformer.
- MTLoRA forks inside the last block of a stage: it takes the own Swin, or timm's, converted.
- OSNet is a chain of residual blocks and the transitions between its stages. Its search for where norms belong puts a mixture in
  the place of each block and leaves the chain as it is.
- ECMT's trunk is no backbone: its slimmable layers change width by state (``set_active_width``), and the operator builds them
  itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from graftwork.math.fingerprint import state_fingerprint

__all__ = ["Backbone", "BlockBackbone", "FeatureShape"]


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


class BlockBackbone(Backbone):
    """A trunk that is a chain of blocks: ``forward`` is :meth:`embed`, :meth:`run_block` for each block, :meth:`finish`.

    What passes from block to block are *states*, in whatever layout the blocks use; :meth:`read_states` gives them as features.
    Methods that put layers into blocks, run blocks of their own or read several depths are written against this
    (:mod:`graftwork.nn.taps` reads depths during a forward pass).
    """

    @abstractmethod
    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the states before the first block, first dimension ``B``."""

    @abstractmethod
    def block_list(self) -> Sequence[nn.Module]:
        """Return the blocks in order; modules that change widths or places between blocks (mergings) are blocks too."""

    def run_block(self, number: int, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the states after block ``number`` (0 is the first); trunks whose blocks need a mask take it from the inputs."""
        return self.block_list()[number](states)

    @abstractmethod
    def finish(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features from the states after the last block, laid out as :attr:`feature_shape` says."""

    @abstractmethod
    def block_shapes(self) -> list[FeatureShape]:
        """Return the layout of :meth:`read_states` after each block."""

    def read_states(self, number: int, states: Tensor) -> Tensor:
        """Return the states after block ``number`` as features, laid out as :meth:`block_shapes` says."""
        return states

    def final_norm(self, states: Tensor) -> Tensor:
        """Return the states after the last block as :meth:`finish` normalises them; trunks without such a norm change nothing."""
        return states

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features, laid out as :attr:`feature_shape` says."""
        states = self.embed(inputs)
        for number in range(len(self.block_list())):
            states = self.run_block(number, states, inputs)
        return self.finish(states, inputs)
