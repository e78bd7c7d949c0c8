"""The last blocks of a frozen network as a function of tokens, so that another network's features can go through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.nn.token_projector import as_map, as_tokens

__all__ = ["LastStage"]

_Layout = Literal["tokens", "channels first", "channels last"]


class LastStage:
    """The last blocks of a backbone and its final norm; gradients flow through them to the tokens, never to the weights.

    Args:
        backbone: Frozen, in evaluation mode.
        count: Number of blocks, at least 1.
        inputs: A batch, for shapes.

    Raises:
        ConfigError: If the backbone has fewer blocks, or its blocks keep states in an unknown layout.
    """

    def __init__(self, backbone: BlockBackbone, count: int, inputs: Mapping[str, Tensor]) -> None:
        blocks = len(backbone.block_list())
        if not 1 <= count <= blocks:
            raise ConfigError(f"stage must be from 1 to {blocks}, the number of blocks of the teacher; got {count}.")
        self.backbone, self.first = backbone, blocks - count
        with torch.no_grad():
            entering = self._before(inputs)
            end = self._run(entering, inputs)
        self._entering, self._end = self._layout(entering), self._layout(end)
        self._extents = tuple(entering.shape[1:]), tuple(end.shape[1:])
        self.entry, self.exit = (tuple(self._flat(states, kind).shape[1:]) for states, kind in self._both(entering, end))
        """Number and width of the tokens that enter, and of those at the end."""

    @torch.no_grad()
    def goal(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the backbone's own last map for a batch, ``[B, C, h, w]``; without a graph."""
        device = next(iter(inputs.values())).device
        if next(self.backbone.parameters()).device != device:
            self.backbone.to(device)
        return self._as_map(self._run(self._before(inputs), inputs))

    def run(self, tokens: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return tokens at the end, ``[B, *exit]``, of tokens that enter the stage, ``[B, *entry]``."""
        states = self._unflat(tokens, self._entering, self._extents[0])
        return self._flat(self._run(states, inputs), self._end)

    def place(self, tokens: Tensor) -> Tensor:
        """Return tokens at the end, ``[B, *exit]``, as a map ``[B, C, h, w]``; what stands for no place is left out."""
        return self._as_map(self._unflat(tokens, self._end, self._extents[1]))

    def _before(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states = self.backbone.embed(inputs)
        for number in range(self.first):
            states = self.backbone.run_block(number, states, inputs)
        return states

    def _run(self, states: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        for number in range(self.first, len(self.backbone.block_list())):
            states = self.backbone.run_block(number, states, inputs)
        return self.backbone.final_norm(states)

    def _as_map(self, states: Tensor) -> Tensor:
        return as_map(self.backbone.read_states(len(self.backbone.block_list()) - 1, states))

    def _layout(self, states: Tensor) -> _Layout:
        if states.ndim == 3:
            return "tokens"
        if states.ndim != 4:
            raise ConfigError(
                f"The blocks of {type(self.backbone).__name__} pass on {list(states.shape)}: neither tokens nor maps."
            )
        read = self.backbone.read_states(self.first, states)
        return "channels first" if read.shape == states.shape and torch.equal(read, states) else "channels last"

    def _both(self, entering: Tensor, end: Tensor) -> tuple[tuple[Tensor, _Layout], tuple[Tensor, _Layout]]:
        return (entering, self._entering), (end, self._end)

    @staticmethod
    def _flat(states: Tensor, layout: _Layout) -> Tensor:
        return states.flatten(1, 2) if layout == "channels last" else as_tokens(states)

    @staticmethod
    def _unflat(tokens: Tensor, layout: _Layout, extent: tuple[int, ...]) -> Tensor:
        """Return tokens ``[B, N, C]`` in the layout of states ``[B, *extent]``."""
        if layout == "channels first":
            return tokens.transpose(1, 2).unflatten(2, extent[1:])
        return tokens.unflatten(1, extent[:2]) if layout == "channels last" else tokens
