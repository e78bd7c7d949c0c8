"""Memorial mixture of experts: convolutional experts that all tasks share, and a task's gate that mixes them with the task's
memory.

Paper: Ye and Xu, "TaskExpert: Dynamically Assembling Multi-Task Representations with Memorial Mixture-of-Experts", ICCV 2023,
https://arxiv.org/abs/2307.15324.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.mlp import mlp

__all__ = ["ConvExperts", "GateKind", "MemorialMixture"]

GateKind = Literal["sample", "spatial", "static"]
"""What a gate's weights depend on: the sample, the sample and the place, or the task alone."""


class ConvExperts(nn.Module):
    """``N`` small convolutional networks on one map, computed together: 1x1 to ``width``, 3x3, norm, GELU.

    Args:
        width_in: Channels ``C`` of the map.
        width: Channels ``C'`` of each expert.
        num_experts: Number of experts ``N``, at least 1.

    Raises:
        ConfigError: If there is no expert.
    """

    def __init__(self, width_in: int, width: int, num_experts: int) -> None:
        super().__init__()
        if num_experts < 1:
            raise ConfigError(f"`num_experts` must be at least 1; got {num_experts}.")
        self.num_experts = num_experts
        self.reduce = nn.Conv2d(width_in, num_experts * width, 1)
        self.spread = nn.Conv2d(num_experts * width, num_experts * width, 3, padding=1, groups=num_experts)
        self.norm = nn.GroupNorm(num_experts, num_experts * width)  # one group an expert

    def forward(self, features: Tensor) -> Tensor:
        """Return all experts' maps side by side, ``[B, N * C', h, w]``, from ``[B, C, h, w]``."""
        return F.gelu(self.norm(self.spread(self.reduce(features))))


class MemorialMixture(nn.Module):
    """One task at one layer: a gate over the shared experts and the task's memory, a light convolution, and the new memory.

    The gate's scores are those of a small network on its context plus a learned vector of the task; both start at zero, so that
    all experts count alike at first. The context is the mean of the layer's features beside the mean of the memory (the two maps
    themselves for spatial gates).

    Args:
        width_in: Channels ``C`` of the layer's features.
        width: Channels ``C'`` of experts and memory.
        num_experts: Number of shared experts ``N``.
        gate: What the weights depend on.
        memory: Whether there is a memory, which is read as one more expert.
        residual: Whether the memory is added to what is written (as opposed to overwritten).

    Raises:
        ConfigError: If the gate is unknown.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        num_experts: int,
        *,
        gate: GateKind = "sample",
        memory: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if gate not in get_args(GateKind):
            raise ConfigError(f"`gate` must be one of {', '.join(get_args(GateKind))}; got {gate!r}.")
        self.gate, self.memory, self.residual = gate, memory, residual
        self.width, self.num_experts = width, num_experts
        num_mixed = num_experts + memory
        self.preference = nn.Parameter(torch.zeros(num_mixed))
        self.context: nn.Sequential | None = None
        if gate != "static":
            # One network for both kinds: applied to a mean, or to every place.
            self.context = mlp([width_in + (width if memory else 0), width, num_mixed])
            last = self.context[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.refine = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.GroupNorm(1, width), nn.GELU())

    def weights(self, features: Tensor, memory: Tensor | None) -> Tensor:
        """Return the mixing weights, ``[B, N (+ 1), 1, 1]`` or with ``h`` and ``w``; they sum to one over the experts, the
        memory's comes last."""
        scores = self.preference
        if self.context is None:
            return torch.softmax(scores, dim=0).view(1, -1, 1, 1).expand(features.shape[0], -1, 1, 1)
        seen = features if memory is None else torch.cat([features, memory], dim=1)
        if self.gate == "sample":
            seen = seen.mean(dim=(2, 3), keepdim=True)
        # Linear layers work on the last axis: [B, h, w, C + C'] and back; h = w = 1 for one gate per sample.
        return torch.softmax(self.context(seen.permute(0, 2, 3, 1)) + scores, dim=-1).permute(0, 3, 1, 2)

    def forward(self, features: Tensor, experts: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the task's features at this layer (the new memory) and the weights of the mixture.

        Args:
            features: The layer's features, ``[B, C, h, w]``.
            experts: Output of :class:`ConvExperts`, ``[B, N * C', h, w]``.
            memory: The task's memory, ``[B, C', h, w]``; None without memory.

        Returns:
            ``[B, C', h, w]``, and the weights as :meth:`weights` returns them.
        """
        weights = self.weights(features, memory)
        # [B, N, 1, ...] times [B, N, C', h, w], summed over the experts.
        assembled = (weights[:, : self.num_experts].unsqueeze(2) * experts.unflatten(1, (self.num_experts, self.width))).sum(
            dim=1
        )
        if memory is None:
            return self.refine(assembled), weights
        written = self.refine(assembled + weights[:, self.num_experts :] * memory)
        return memory + written if self.residual else written, weights
