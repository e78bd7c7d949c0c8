"""Encoder of behaviour sequences that conditions can specialise, and attention over it from a query.

One set of weights serves every sequence. A condition (a task and a behaviour type, say) changes how it reads, by one of

- ``film``: scale and shift of every layer norm (Perez et al., "FiLM", AAAI 2018, https://arxiv.org/abs/1709.07871);
- ``lowrank``: ``W = W0 + U diag(h) V`` in every linear layer, ``h`` from the condition.

Both start at zero change, so that a conditioned encoder starts as the plain one. Padded positions are kept from the softmax and
from pooling; a sequence without any item gives the zero vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.mlp import mlp

__all__ = ["Condition", "Conditioner", "QueryAttention", "SequenceEncoder"]

Conditioning = Literal["none", "film", "lowrank"]
Condition = Mapping[str, Tensor]
"""What changes in each layer, by its name: ``[K, S, 2 d]`` or ``[K, S, rank]`` for ``K`` conditions on each of ``S``
sequences."""


class SequenceEncoder(nn.Module):
    """Pre-norm transformer layers over ``[B, K, S, L, d]``: ``K`` readings of ``S`` sequences of ``L`` positions.

    Args:
        width: Width ``d``, divisible by ``num_heads``.
        num_heads: Attention heads.
        hidden: Hidden width of the feed-forward networks.
        num_layers: Layers; each is attention and a feed-forward network, and a norm ends the stack.
        conditioning: How conditions act; ``"none"`` takes none, and norms have a scale and shift of their own.
        rank: Rank of ``lowrank``.

    Raises:
        ConfigError: If the width does not fit the heads, or ``conditioning`` is unknown.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int = 2,
        hidden: int = 32,
        num_layers: int = 1,
        conditioning: Conditioning = "none",
        rank: int = 4,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"The encoder's width {width} must be divisible by its {num_heads} heads.")
        if conditioning not in ("none", "film", "lowrank"):
            raise ConfigError(f"Conditioning is none, film or lowrank; got {conditioning!r}.")
        self.width, self.num_heads, self.num_layers, self.conditioning = width, num_heads, num_layers, conditioning
        sizes = {"project": (width, 3 * width), "output": (width, width), "widen": (width, hidden), "narrow": (hidden, width)}
        self.linears = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        self.factors = nn.ParameterDict()
        for layer in range(num_layers):
            for name, (size_in, size_out) in sizes.items():
                self.linears[f"{name}{layer}"] = nn.Linear(size_in, size_out)
                if conditioning == "lowrank":
                    self.factors[f"{name}{layer}_in"] = nn.Parameter(torch.randn(size_in, rank) / size_in**0.5)
                    self.factors[f"{name}{layer}_out"] = nn.Parameter(torch.randn(rank, size_out) / rank**0.5)
        for name in [f"{part}{layer}" for layer in range(num_layers) for part in ("before", "between")] + ["last"]:
            # With film the condition gives scale and shift; a second pair would be redundant.
            self.norms[name] = nn.LayerNorm(width, elementwise_affine=conditioning != "film")
        changed = self.norms if conditioning == "film" else self.linears
        self.change_sizes = (
            {} if conditioning == "none" else dict.fromkeys(changed, 2 * width if conditioning == "film" else rank)
        )
        """Width of the change that each layer takes from a condition, by its name."""

    def forward(self, states: Tensor, filled: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the encoded positions, ``[B, K, S, L, d]`` (``K`` is 1 without a condition).

        Args:
            states: ``[B, S, L, d]``.
            filled: Which positions hold an item, bool ``[B, S, L]``.
            condition: The changes, ``K`` conditions on each sequence.
        """
        changes = condition or {}
        states = states.unsqueeze(1)
        # The smallest number, not minus infinity: a sequence that is all padding would have a softmax of NaN.
        bias = torch.zeros(filled.shape, dtype=states.dtype, device=states.device).masked_fill(
            ~filled, torch.finfo(states.dtype).min
        )
        bias = bias[:, None, :, None, None, :]  # over K, heads and queries
        for layer in range(self.num_layers):
            states = states + self._attend(self._norm(f"before{layer}", states, changes), bias, layer, changes)
            wide = F.gelu(self._linear(f"widen{layer}", self._norm(f"between{layer}", states, changes), changes))
            states = states + self._linear(f"narrow{layer}", wide, changes)
        return self._norm("last", states, changes)

    def _norm(self, name: str, states: Tensor, changes: Condition) -> Tensor:
        normed: Tensor = self.norms[name](states)
        if name not in changes:
            return normed
        scale, shift = changes[name].unsqueeze(2).chunk(2, dim=-1)  # [K, S, 1, d]: one for all positions
        return normed * (1.0 + scale) + shift

    def _linear(self, name: str, states: Tensor, changes: Condition) -> Tensor:
        result: Tensor = self.linears[name](states)
        if name not in changes:
            return result
        # x U diag(h) V without forming a matrix for each condition; h is [K, S, 1, rank].
        return result + ((states @ self.factors[f"{name}_in"]) * changes[name].unsqueeze(2)) @ self.factors[f"{name}_out"]

    def _attend(self, states: Tensor, bias: Tensor, layer: int, changes: Condition) -> Tensor:
        query, key, value = (
            # [B, K, S, heads, L, width of a head]
            part.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
            for part in self._linear(f"project{layer}", states, changes).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-1, -2) / (self.width // self.num_heads) ** 0.5 + bias
        mixed = (torch.softmax(scores, dim=-1) @ value).transpose(-2, -3).flatten(-2)
        return self._linear(f"output{layer}", mixed, changes)


class QueryAttention(nn.Module):
    """One vector per sequence: positions weighted by how they fit a query (the item shown).

    Args:
        width: Width ``d``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)  # a bias would shift all scores alike

    def forward(self, query: Tensor, states: Tensor, filled: Tensor) -> Tensor:
        """Return ``[B, K, S, d]``, zero where nothing is filled.

        Args:
            query: ``[B, d]``.
            states: ``[B, K, S, L, d]``.
            filled: Bool ``[B, S, L]``.
        """
        # [B, 1, 1, d, 1], against keys [B, K, S, L, d].
        asked = self.query(query)[:, None, None, :, None]
        scores = (self.key(states) @ asked).squeeze(-1) / states.shape[-1] ** 0.5
        present = filled.unsqueeze(1)
        scores = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
        # Masked once more: where nothing is filled the softmax is uniform over padding.
        weights = torch.softmax(scores, dim=-1) * present.to(scores.dtype)
        return (weights.unsqueeze(-1) * states).sum(dim=-2)


class Conditioner(nn.Module):
    """A hypernetwork from condition vectors to the changes of an encoder; its last layer starts at zero.

    Args:
        width: Width of a condition vector.
        change_sizes: :attr:`SequenceEncoder.change_sizes`.
        hidden: Hidden width.
    """

    def __init__(self, width: int, change_sizes: Mapping[str, int], *, hidden: int = 32) -> None:
        super().__init__()
        self.sizes = dict(change_sizes)
        self.layers = mlp([width, hidden, sum(self.sizes.values())])
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, conditions: Tensor) -> dict[str, Tensor]:
        """Return the changes by layer, ``[K, S, size]`` each, from ``[K, S, width]``."""
        return dict(zip(self.sizes, self.layers(conditions).split(list(self.sizes.values()), dim=-1), strict=True))
