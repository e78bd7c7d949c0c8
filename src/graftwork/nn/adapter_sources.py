"""Where the weights of adapters come from when several tasks have some: matrices of their own or shared, Kronecker products, or a
network that makes them.

Papers: Sung, Cho and Bansal, "VL-Adapter", CVPR 2022, https://arxiv.org/abs/2112.06825 (sharing over tasks); Mahabadi, Henderson
and Ruder, "Compacter", NeurIPS 2021, https://arxiv.org/abs/2106.04647; Mahabadi et al., "Parameter-efficient Multi-task
Fine-tuning for Transformers via Shared Hypernetworks" (HyperFormer), ACL 2021, https://arxiv.org/abs/2106.04489.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.foldable import WrappingLayer

__all__ = ["AdapterSource", "AdapterWeights", "GeneratedAdapters", "KroneckerLinear", "SharedAdapters", "SwitchedAdapter"]


class AdapterWeights(NamedTuple):
    """One adapter: ``down [r, d]``, ``down_bias [r]``, ``up [d, r]``, ``up_bias [d]``."""

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


class SwitchedAdapter(WrappingLayer):
    """``y + up(gelu(down(y)))`` for what ``base`` returns, with the weights that are switched on; without any it is ``y``.

    Args:
        base: Any module that returns a tensor, or a tuple whose first item is one.
        channels: Whether channels are the last dimension or the second one (maps ``[B, C, H, W]``).
    """

    def __init__(self, base: nn.Module, *, channels: Literal["last", "second"] = "last") -> None:
        super().__init__()
        self.base, self.channels = base, channels
        self.weights: AdapterWeights | None = None

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Return what the base returns, with the adapter's answer added to its (first) tensor."""
        output = self.base(*arguments, **keywords)
        if self.weights is None:
            return output
        if isinstance(output, tuple):
            return (self._adapted(output[0], self.weights), *output[1:])
        return self._adapted(output, self.weights)

    def _adapted(self, states: Tensor, weights: AdapterWeights) -> Tensor:
        read = states if self.channels == "last" else states.movedim(1, -1)
        added = F.linear(F.gelu(F.linear(read, weights.down, weights.down_bias)), weights.up, weights.up_bias)
        return states + (added if self.channels == "last" else added.movedim(-1, 1))


class KroneckerLinear(nn.Module):
    """A matrix ``[out, in]`` that is ``sum_i A_i (x) (s_i t_i)`` with ``A_i [n, n]`` shared by many, and a bias.

    Args:
        num_in: Inputs, a multiple of ``n``.
        num_out: Outputs, a multiple of ``n``.
        size: ``n``.
        starts_at_zero: Whether ``s`` begins at zero.

    Raises:
        ConfigError: If ``n`` does not divide inputs and outputs.
    """

    def __init__(self, num_in: int, num_out: int, size: int, *, starts_at_zero: bool) -> None:
        super().__init__()
        if num_in % size or num_out % size:
            raise ConfigError(
                f"`kronecker` must divide the width and the bottleneck of every adapter; {size} does not divide {num_in} and "
                f"{num_out}."
            )
        left = torch.zeros(size, num_out // size) if starts_at_zero else torch.randn(size, num_out // size)
        self.left = nn.Parameter(left)
        # With A_i of entries about 1 / sqrt(n) the matrix has entries as a linear layer has: about 1 / sqrt(in).
        self.right = nn.Parameter(torch.randn(size, num_in // size) / math.sqrt(num_in))
        self.bias = nn.Parameter(torch.zeros(num_out))

    def matrix(self, rules: Tensor) -> Tensor:
        """Return the matrix, ``[out, in]``, with ``A`` as ``[n, n, n]``: shared with others, so no parameter of this module."""
        return torch.einsum("iab,ic,id->acbd", rules, self.left, self.right).flatten(0, 1).flatten(1)


class AdapterSource(nn.Module, ABC):
    """Gives the weights of the adapter of a task at a place; every adapter begins without effect."""

    @abstractmethod
    def weights(self, place: int, task: int) -> AdapterWeights:
        """Return the weights, with gradients."""

    def own(self, task: int) -> Iterator[nn.Parameter]:
        """Yield the parameters that only one task uses."""
        return iter(())


class SharedAdapters(AdapterSource):
    """Matrices down and up for each place: one for all tasks or one each, plain or as Kronecker products (Compacter).

    Args:
        sizes: Width and bottleneck of each place.
        tasks: Number of tasks.
        share_down: Whether all tasks share ``down``.
        share_up: Whether all tasks share ``up``.
        kronecker: Size ``n`` of the small matrices, shared by all places and tasks; 0 takes plain matrices.

    Raises:
        ConfigError: If ``kronecker`` does not divide a width or a bottleneck.
    """

    def __init__(
        self, sizes: Sequence[tuple[int, int]], tasks: int, *, share_down: bool, share_up: bool, kronecker: int = 0
    ) -> None:
        super().__init__()
        self._copies = (1 if share_down else tasks, 1 if share_up else tasks)

        def linear(num_in: int, num_out: int, is_up: bool) -> nn.Module:
            if kronecker:
                return KroneckerLinear(num_in, num_out, kronecker, starts_at_zero=is_up)
            layer = nn.Linear(num_in, num_out)
            if is_up:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
            return layer

        downs, ups = self._copies
        self.downs = nn.ModuleList(nn.ModuleList(linear(wide, slim, False) for _ in range(downs)) for wide, slim in sizes)
        self.ups = nn.ModuleList(nn.ModuleList(linear(slim, wide, True) for _ in range(ups)) for wide, slim in sizes)
        self.rules: nn.ParameterList | None = None
        if kronecker:
            shape, spread = (kronecker, kronecker, kronecker), math.sqrt(kronecker)
            self.rules = nn.ParameterList(nn.Parameter(torch.randn(shape) / spread) for _ in range(2))

    def weights(self, place: int, task: int) -> AdapterWeights:
        """Return the weights, with gradients."""
        found = []
        for number, modules in enumerate((self.downs, self.ups)):
            copies: Any = modules[place]
            layer: Any = copies[task if self._copies[number] > 1 else 0]
            found += [layer.weight if self.rules is None else layer.matrix(self.rules[number]), layer.bias]
        return AdapterWeights(*found)

    def own(self, task: int) -> Iterator[nn.Parameter]:
        """Yield the task's own matrices."""
        for number, modules in enumerate((self.downs, self.ups)):
            for copies in modules if self._copies[number] > 1 else ():
                assert isinstance(copies, nn.ModuleList)
                yield from copies[task].parameters()


class GeneratedAdapters(AdapterSource):
    """A network makes the weights from an embedding of the task and one of the place (HyperFormer).

    Args:
        sizes: Width and bottleneck of each place; places of one size share the last layer of the network.
        tasks: Number of tasks.
        embedding: Width of the embeddings, and of the network's hidden layer.

    Raises:
        ConfigError: If ``embedding`` is below 1.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], tasks: int, *, embedding: int = 32) -> None:
        super().__init__()
        if embedding < 1:
            raise ConfigError(f"`embedding` must be at least 1; got {embedding!r}.")
        self.sizes = tuple(sizes)
        self.task_embeddings = nn.ParameterList(nn.Parameter(torch.randn(embedding)) for _ in range(tasks))
        self.place_embeddings = nn.Parameter(torch.randn(len(self.sizes), embedding))
        self.trunk = nn.Sequential(nn.Linear(2 * embedding, embedding), nn.ReLU(), nn.Linear(embedding, embedding))
        self.norm = nn.LayerNorm(embedding)
        kinds = sorted(set(self.sizes))
        self._kind = [kinds.index(size) for size in self.sizes]
        self.downs = nn.ModuleList(nn.Linear(embedding, slim * (wide + 1)) for wide, slim in kinds)
        self.ups = nn.ModuleList(nn.Linear(embedding, wide * (slim + 1)) for wide, slim in kinds)
        for (wide, _), down, up in zip(kinds, self.downs, self.ups, strict=True):
            assert isinstance(down, nn.Linear)
            assert isinstance(up, nn.Linear)
            # Of a normalised embedding, so that entries are about 1 / sqrt(width).
            nn.init.normal_(down.weight, std=1.0 / math.sqrt(embedding * wide))
            nn.init.zeros_(down.bias)
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def weights(self, place: int, task: int) -> AdapterWeights:
        """Return the weights, with gradients."""
        wide, slim = self.sizes[place]
        asked = torch.cat([self.task_embeddings[task], self.place_embeddings[place]])
        code = self.norm(self.trunk(asked))
        kind = self._kind[place]
        down, up = self.downs[kind](code), self.ups[kind](code)
        return AdapterWeights(
            down[: slim * wide].view(slim, wide), down[slim * wide :], up[: wide * slim].view(wide, slim), up[wide * slim :]
        )

    def own(self, task: int) -> Iterator[nn.Parameter]:
        """Yield the task's embedding."""
        yield self.task_embeddings[task]
