"""A frozen layer with an inventory of low-rank updates that each task mixes in its own way, slice by slice: the layer of MHR.

Paper: Caccia et al., "Multi-Head Adapter Routing for Cross-Task Generalization", NeurIPS 2023, https://arxiv.org/abs/2211.03831;
with one slice it is Polytropon (Ponti et al., "Combining Modular Skills in Multitask Learning", 2022,
https://arxiv.org/abs/2202.13914).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.delta_parts import LowRank
from graftwork.nn.foldable import FoldableLayer, WrappingLayer
from graftwork.nn.lora import can_wrap
from graftwork.nn.updated_layer import call_with_weight

__all__ = ["FoldableRouted", "RoutedLowRank", "normalised_routing"]

_EPSILON = 1e-8


def normalised_routing(logits: Tensor) -> Tensor:
    """Return weights over skills, the last dimension: sigmoids divided by their sum; no softmax.

    Example:
        >>> normalised_routing(torch.tensor([0.0, 0.0])).tolist()
        [0.5, 0.5]
    """
    open_gates = logits.sigmoid()
    return open_gates / (open_gates.sum(dim=-1, keepdim=True) + _EPSILON)


class RoutedLowRank(WrappingLayer):
    """``W + scaling * B A`` where ``A`` and ``B`` are mixed from ``S`` skills by the task that is active, for each of ``K`` slices.

    ``A`` is cut along the inputs, ``B`` along the outputs; parameters are mixed, not outputs: ``A[q] = sum_s alpha[q, s] A_s[q]``,
    ``B[q]`` likewise. ``B`` starts at zero. Which task is active is :attr:`task`; :meth:`part` takes that. It cannot be folded, since one weight
    cannot hold the mixtures of several tasks; see :class:`FoldableRouted`.

    Args:
        base: A Linear layer, or a Conv2d layer without groups; its parameters stop requiring gradients.
        skills: Number of skills ``S``, at least 1.
        rank: Rank of each, at least 1.
        heads: Number of slices ``K``; it divides the inputs (channels) and the outputs.
        scaling: Factor on the update.
        tasks: Number of tasks ``T``, at least 1.
        routing: The logits of other layers, to share them; None makes own ones.

    Raises:
        ConfigError: If a number is out of range, or the layer cannot be cut.
    """

    def __init__(
        self,
        base: nn.Module,
        *,
        skills: int,
        rank: int,
        heads: int,
        scaling: float,
        tasks: int = 1,
        routing: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        if min(skills, rank, heads, tasks) < 1:
            raise ConfigError(
                f"`skills`, `r`, `heads` and the number of tasks must be at least 1; got {skills}, {rank}, {heads}, {tasks}."
            )
        if not can_wrap(base):
            raise ConfigError(
                f"Routed updates exist for Linear layers and Conv2d layers without groups; got {type(base).__name__}."
            )
        weight: Any = base.weight
        out, wide, *kernel = weight.shape
        if out % heads or wide % heads:
            raise ConfigError(
                f"`heads` must divide inputs and outputs of every layer; {heads} does not divide a layer from {wide} to {out}."
            )
        self.base = base.requires_grad_(False)
        self.rank, self.heads, self.scaling, self.task = rank, heads, scaling, 0
        cells = math.prod(kernel)
        down = torch.empty(skills, rank, wide * cells)
        nn.init.kaiming_uniform_(down.flatten(0, 1), a=math.sqrt(5))  # a view: drawn as LoRA draws each
        self.down = nn.Parameter(down.view(skills, rank, heads, -1).to(weight))
        """``[S, r, K, in / K]``, kernels of convolutions among the inputs."""
        self.up = nn.Parameter(weight.new_zeros(skills, heads, out // heads, rank))
        """``[S, K, out / K, r]``."""
        self.routing = routing if routing is not None else nn.Parameter(torch.empty(tasks, heads, skills).uniform_(-1e-3, 1e-3))
        """Logits ``[T, K, S]``."""

    def mixed(self, task: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ``A [r, in]`` and ``B [out, r]`` of a task, by default the active one."""
        alpha = normalised_routing(self.routing[self.task if task is None else task])
        down = torch.einsum("ks,srki->rki", alpha, self.down).flatten(1)
        return down, torch.einsum("ks,skor->kor", alpha, self.up).flatten(0, 1)

    @property
    def weight(self) -> Tensor:
        """The weight that it computes with, in the shape of the base weight."""
        base: Any = self.base.weight
        down, up = self.mixed()
        return base + (self.scaling * (up @ down)).view(base.shape)  # type: ignore[no-any-return]

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias."""
        bias: Any = self.base.bias
        return bias  # type: ignore[no-any-return]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what the base layer computes with :attr:`weight`."""
        return call_with_weight(self.base, self.weight, inputs)

    @torch.no_grad()
    def part(self, task: int | None = None) -> LowRank:
        """Return the mixture of a task, by default the active one, as a delta's part with copies of the tensors."""
        return self._as_part(*self.mixed(task))

    @torch.no_grad()
    def skill(self, number: int) -> LowRank:
        """Return one skill as a delta's part with copies of the tensors."""
        return self._as_part(self.down[number].flatten(1), self.up[number].flatten(0, 1))

    @torch.no_grad()
    def load_skills(self, parts: Sequence[LowRank]) -> None:
        """Take over ``S`` skills of rank ``r``; their factors go into ``B``."""
        for number, part in enumerate(parts):
            self.down[number] = part.down.flatten(1).view_as(self.down[number]).to(self.down)
            self.up[number] = (part.up.flatten(1) * (part.factor / self.scaling)).view_as(self.up[number]).to(self.up)

    def _as_part(self, down: Tensor, up: Tensor) -> LowRank:
        weight: Any = self.base.weight
        ones = [1] * (weight.ndim - 2)
        shape = (self.rank, *weight.shape[1:])
        return LowRank(down.detach().clone().view(shape), up.detach().clone().view(*up.shape, *ones), self.scaling)


class FoldableRouted(RoutedLowRank, FoldableLayer):
    """The same for one task alone, whose mixture folds into the base weight."""

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Return the base layer with the task's update added to its weight, in place."""
        weight: Any = self.base.weight
        weight.data = self.weight.detach().clone()
        return self.base
