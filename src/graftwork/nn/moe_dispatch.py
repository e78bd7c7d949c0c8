"""Tokens to experts and back: sorted by expert, multiplied group by group; no loop over tokens, and only chosen experts are
computed.

:class:`Dispatch` is for PyTorch, :class:`TracedDispatch` says the same in operations that a traced graph keeps free of the
number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError

__all__ = ["Dispatch", "GroupedLinear", "TracedDispatch"]


class _Permute(torch.autograd.Function):
    """Rows in another order. The gradient is a permutation as well, where ``index_select`` alone would add into zeros."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        return rows.index_select(0, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override, unused-ignore]
        order, inverse = ctx.saved_tensors
        return _Permute.apply(gradient, inverse, order), None, None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Where each of the ``N * k`` pairs of token and chosen expert goes."""

    order: Tensor
    """Pairs sorted by expert, int64 ``[N * k]``; within an expert in the order of the tokens."""
    inverse: Tensor
    """The inverse permutation."""
    counts: list[int]
    """Tokens of each expert, ``E`` numbers; a queue's length."""
    top_k: int

    @classmethod
    def of(cls, experts: Tensor, num_experts: int) -> Dispatch:
        """Sort the chosen experts, int64 ``[N, k]``, of ``N`` tokens."""
        flat = experts.reshape(-1)
        # Stable, so that sums over rows are in one order in every run.
        order = torch.argsort(flat, stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return cls(order, inverse, torch.bincount(flat, minlength=num_experts).tolist(), experts.shape[1])

    def to_experts(self, tokens: Tensor) -> Tensor:
        """Return ``[N, d]`` as rows sorted by expert, ``[N * k, d]``: each token stands in ``k`` queues."""
        if not torch.is_grad_enabled():
            # Pair p belongs to token p // k. Without a graph one gather does it, and the copies of each token are never made.
            return tokens.index_select(0, self.order.div(self.top_k, rounding_mode="floor"))
        pairs = tokens.unsqueeze(1).expand(-1, self.top_k, -1).flatten(0, 1)
        return self.pairs_to_experts(pairs)

    def pairs_to_experts(self, pairs: Tensor) -> Tensor:
        """Return one row per token and choice, ``[N * k, d]`` token by token, sorted by expert."""
        permuted: Tensor = _Permute.apply(pairs, self.order, self.inverse)
        return permuted

    def to_tokens(self, rows: Tensor) -> Tensor:
        """Return rows sorted by expert, ``[N * k, d]``, as ``[N, k, d]``."""
        permuted: Tensor = _Permute.apply(rows, self.inverse, self.order)
        return permuted.view(rows.shape[0] // self.top_k, self.top_k, rows.shape[1])

    def of_tokens(self, layers: GroupedLinear, tokens: Tensor) -> Tensor:
        """Return the results of each token's experts for ``[N, d]``, as ``[N, k, out]``."""
        return self.to_tokens(layers(self.to_experts(tokens), self.counts))

    def of_pairs(self, layers: GroupedLinear, pairs: Tensor) -> Tensor:
        """Return the results for ``[N * k, d]``, which are given token by token, as ``[N, k, out]``."""
        return self.to_tokens(layers(self.pairs_to_experts(pairs), self.counts))


@dataclass(frozen=True, slots=True)
class TracedDispatch:
    """A :class:`Dispatch` for exported graphs: lists with one entry per expert, whose row counts are known only when the graph
    runs.

    No shape is read from anything whose length depends on the routing: the exporter folds shapes that are equal for all example
    rows (:func:`graftwork.export.onnx_graph.fold_batch_free_shapes`), as that of an expert that none of them chooses would be.
    """

    places: list[Tensor]
    """Token and choice of each expert's rows, int64 ``[n_e, 2]``; ``n_e`` may be 0, and all ``n_e`` add up to ``N * k``."""
    inverse: Tensor
    """Where each pair of token and choice stands when the experts' rows are joined, int64 ``[N * k]``."""
    top_k: int

    @classmethod
    def of(cls, experts: Tensor, num_experts: int) -> TracedDispatch:
        """Find the rows of each expert among the chosen ones, int64 ``[N, k]``."""
        top_k = int(experts.shape[1])
        # One `nonzero` for each expert rather than a sort and counts: their lengths stay symbolic in a traced graph.
        places = [(experts == expert).nonzero() for expert in range(num_experts)]
        order = _pairs(torch.cat(places), top_k)
        every = torch.arange(experts.shape[0] * top_k, device=experts.device)
        return cls(places, torch.zeros_like(experts.reshape(-1)).scatter(0, order, every), top_k)

    def to_experts(self, tokens: Tensor) -> list[Tensor]:
        """Return each expert's rows of ``[N, d]``."""
        return [tokens.index_select(0, place[:, 0]) for place in self.places]

    def pairs_to_experts(self, pairs: Tensor) -> list[Tensor]:
        """Return each expert's rows of ``[N * k, d]``, which are given token by token."""
        return [pairs.index_select(0, _pairs(place, self.top_k)) for place in self.places]

    def to_tokens(self, groups: Sequence[Tensor]) -> Tensor:
        """Return the rows of all experts as ``[N, k, d]``."""
        rows = torch.cat(list(groups)).index_select(0, self.inverse)
        return rows.view(-1, self.top_k, int(rows.shape[1]))

    def of_tokens(self, layers: GroupedLinear, tokens: Tensor) -> Tensor:
        """Return the results of each token's experts for ``[N, d]``, as ``[N, k, out]``."""
        return self.to_tokens(layers.each(self.to_experts(tokens)))

    def of_pairs(self, layers: GroupedLinear, pairs: Tensor) -> Tensor:
        """Return the results for ``[N * k, d]``, which are given token by token, as ``[N, k, out]``."""
        return self.to_tokens(layers.each(self.pairs_to_experts(pairs)))


def _pairs(places: Tensor, top_k: int) -> Tensor:
    """Return ``[n, 2]`` tokens and choices as places among all pairs, ``[n]``, counted token by token."""
    return places[:, 0] * top_k + places[:, 1]


class GroupedLinear(nn.Module):
    """``E`` linear layers, one for each group of rows.

    The weights lie in banks ``[E_i, in, out]`` with ``sum(E_i) == E``: experts that are added later make a bank of their own, so
    that older ones can be frozen.

    Args:
        num_experts: Number of layers ``E`` of the first bank.
        width_in: Width of a row.
        width_out: Width of a result.
    """

    def __init__(self, num_experts: int, width_in: int, width_out: int) -> None:
        super().__init__()
        self.width_in, self.width_out = width_in, width_out
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.add_experts(num_experts)

    @property
    def num_experts(self) -> int:
        """Number of experts in all banks."""
        return sum(bank.shape[0] for bank in self.weights)

    def add_experts(self, count: int) -> None:
        """Add a bank, drawn as :class:`torch.nn.Linear` draws its weights."""
        bound = 1.0 / math.sqrt(self.width_in)
        # New experts get device and type of the older ones.
        like = self.weights[0] if len(self.weights) else torch.empty(0)
        for banks, shape in ((self.weights, (count, self.width_in, self.width_out)), (self.biases, (count, self.width_out))):
            banks.append(nn.Parameter(like.new_empty(shape).uniform_(-bound, bound)))

    @torch.no_grad()
    def keep_experts(self, experts: Sequence[int]) -> None:
        """Keep some experts, renumbered in the given order, in one bank.

        Raises:
            ConfigError: If none is kept, or one does not exist.
        """
        if not experts or not 0 <= min(experts) <= max(experts) < self.num_experts:
            raise ConfigError(f"Keep at least one of the experts 0 to {self.num_experts - 1}; got {list(experts)}.")
        weight, bias = self.stacked()
        chosen = torch.as_tensor(list(experts), device=weight.device)
        self.weights = nn.ParameterList([nn.Parameter(weight[chosen].clone())])
        self.biases = nn.ParameterList([nn.Parameter(bias[chosen].clone())])

    def stacked(self) -> tuple[Tensor, Tensor]:
        """Return all weights ``[E, in, out]`` and biases ``[E, out]``."""
        if len(self.weights) == 1:
            return self.weights[0], self.biases[0]
        return torch.cat(list(self.weights)), torch.cat(list(self.biases))

    def forward(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return ``[R, out]`` for rows ``[R, in]`` of which the first ``counts[0]`` belong to expert 0, and so on."""
        weights = [weight for bank in self.weights for weight in bank.unbind(0)]
        biases = [bias for bank in self.biases for bias in bank.unbind(0)]
        # Experts without rows are left out: their product would be empty and still cost a call.
        groups = [group for group in zip(biases, rows.split(list(counts)), weights, strict=True) if group[1].shape[0]]
        if not torch.is_grad_enabled() and rows.dtype == weights[0].dtype and not torch.is_autocast_enabled(rows.device.type):
            # Joining the groups afterwards would copy all of them, a fifth of a narrow layer's time.
            joined = rows.new_empty(rows.shape[0], self.width_out)
            for place, (bias, group, weight) in zip(joined.split([len(group[1]) for group in groups]), groups, strict=True):
                torch.addmm(bias, group, weight, out=place)
            return joined
        results = [torch.addmm(bias, group, weight) for bias, group, weight in groups]
        return torch.cat(results) if results else rows.new_zeros(0, self.width_out)

    def each(self, groups: Sequence[Tensor]) -> list[Tensor]:
        """Return one result per group of rows, for the first experts; empty groups are multiplied too, as traced graphs need
        it."""
        weight, bias = self.stacked()
        return [torch.addmm(bias[expert], group, weight[expert]) for expert, group in enumerate(groups)]

    def all_experts(self, rows: Tensor) -> Tensor:
        """Return the results of all experts for all rows, ``[R, E, out]``: the dense path of exported graphs and of
        references."""
        weight, bias = self.stacked()
        # [R, in] with [in, E * out]: one product for all experts.
        flat = rows @ weight.transpose(0, 1).reshape(self.width_in, -1)
        return flat.unflatten(1, (-1, self.width_out)) + bias
