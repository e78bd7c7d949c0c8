"""Graph networks on one dense adjacency matrix of a few hundred nodes, with the choices that design spaces vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["ACTIVATIONS", "LAYERS", "DenseGraphBody", "GraphLayer"]

LayerKind = Literal["mean", "sum", "concat", "self"]
LAYERS: tuple[str, ...] = get_args(LayerKind)
"""How a node reads its neighbours: the mean with itself, the sum beside a weighted self, itself and the mean side by side, or not."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


class GraphLayer(nn.Module):
    """One round of messages.

    Args:
        width_in: Features of a node before.
        width_out: Features after.
        kind: One of :data:`LAYERS`.

    Raises:
        ConfigError: If there is no such kind.
    """

    def __init__(self, width_in: int, width_out: int, kind: LayerKind) -> None:
        super().__init__()
        if kind not in LAYERS:
            raise ConfigError(f"There is no graph layer {kind!r}; choose from {', '.join(LAYERS)}.")
        self.kind = kind
        self.linear = nn.Linear(2 * width_in if kind == "concat" else width_in, width_out)

    def forward(self, states: Tensor, adjacency: Tensor) -> Tensor:
        """Return ``[n, width_out]`` of states ``[n, width_in]`` and an adjacency ``[n, n]`` without self-loops."""
        if self.kind == "self":
            return self.linear(states)
        around = adjacency @ states
        degree = adjacency.sum(dim=1, keepdim=True)
        if self.kind == "sum":
            return self.linear(states + around)
        if self.kind == "mean":
            return self.linear((states + around) / (1.0 + degree))
        return self.linear(torch.cat([states, around / degree.clamp(min=1.0)], dim=1))


class DenseGraphBody(nn.Module):
    """An input layer and rounds of messages; a linear head goes on top.

    Args:
        width_in: Features of a node.
        width: Features of its states.
        depth: Rounds of messages, at least 1.
        kind: Of the rounds, see :class:`GraphLayer`.
        activation: A key of :data:`ACTIVATIONS`.
        skip: Whether the states of a round are added to those before.

    Raises:
        ConfigError: If a choice does not exist.
    """

    def __init__(
        self, width_in: int, width: int, depth: int, *, kind: LayerKind, activation: str = "relu", skip: bool = False
    ) -> None:
        super().__init__()
        if depth < 1 or activation not in ACTIVATIONS:
            raise ConfigError(
                f"depth is at least 1 and activation one of {', '.join(ACTIVATIONS)}; got {depth!r} and {activation!r}."
            )
        self.activation, self.skip = ACTIVATIONS[activation], skip
        self.entry = nn.Linear(width_in, width)
        self.rounds = nn.ModuleList(GraphLayer(width, width, kind) for _ in range(depth))

    def forward(self, features: Tensor, adjacency: Tensor) -> Tensor:
        """Return states ``[n, width]`` of features ``[n, width_in]`` and an adjacency ``[n, n]``."""
        states = self.activation(self.entry(features))
        for layer in self.rounds:
            found = self.activation(layer(states, adjacency))
            states = states + found if self.skip else found
        return states
