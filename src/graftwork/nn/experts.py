"""Banks of experts computed all at once, and gates that mix them, for features of any layout.

Features are brought into the form ``[B, P, D]`` with ``P`` positions (1 for a vector, the tokens, the cells of a map): experts
see every position alike, gates see the mean over positions and choose once a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.interfaces.backbone import FeatureShape

__all__ = ["ExpertBank", "Gate", "from_positions", "mix_experts", "to_positions"]


class ExpertBank(nn.Module):
    """``E`` two-layer perceptrons with GELU as two batched products; no loop over experts.

    Args:
        num_experts: Number of experts ``E``.
        width_in: Width ``D`` of the input.
        width_out: Width ``O`` of each expert's output.
        hidden: Hidden width; None takes ``width_out``.
        dropout: Probability of dropping a hidden unit.
    """

    def __init__(
        self, num_experts: int, width_in: int, width_out: int, *, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if num_experts < 1:
            raise ValueError(f"`num_experts` must be at least 1; got {num_experts!r}.")
        hidden = width_out if hidden is None else hidden
        self.num_experts, self.width_out, self.dropout = num_experts, width_out, dropout
        self.weight_in = nn.Parameter(_drawn(num_experts, width_in, hidden, fan_in=width_in))
        self.bias_in = nn.Parameter(torch.zeros(num_experts, hidden))
        self.weight_out = nn.Parameter(_drawn(num_experts, hidden, width_out, fan_in=hidden))
        self.bias_out = nn.Parameter(torch.zeros(num_experts, width_out))

    def forward(self, positions: Tensor) -> Tensor:
        """Return the outputs of all experts, ``[B, P, E, O]``, from ``[B, P, D]``."""
        # [B, P, E, hidden]
        hidden = F.gelu(torch.einsum("bpd,edh->bpeh", positions, self.weight_in) + self.bias_in)
        hidden = F.dropout(hidden, self.dropout, self.training)
        return torch.einsum("bpeh,eho->bpeo", hidden, self.weight_out) + self.bias_out


class Gate(nn.Module):
    """A softmax over experts from the mean over positions. It starts at zero: all experts count alike.

    Args:
        width: Width ``D`` of the input.
        num_experts: Number of experts ``E`` to choose from.
    """

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, num_experts)
        nn.init.zeros_(self.scores.weight)
        nn.init.zeros_(self.scores.bias)

    def forward(self, positions: Tensor) -> Tensor:
        """Return weights ``[B, E]`` that sum to one, from ``[B, P, D]``."""
        return torch.softmax(self.scores(positions.mean(dim=1)), dim=-1)


def mix_experts(weights: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """Return the weighted sum of experts ``[B, P, O]``.

    Args:
        weights: ``[B, E]``.
        outputs: Outputs of one or several banks, ``[B, P, E_i, O]`` with ``sum(E_i) == E``.
    """
    experts = outputs[0] if len(outputs) == 1 else torch.cat(list(outputs), dim=2)
    return torch.einsum("be,bpeo->bpo", weights, experts)


def to_positions(features: Tensor, shape: FeatureShape) -> Tensor:
    """Return features of any layout as ``[B, P, D]``."""
    if shape.layout == "vector":
        return features.unsqueeze(1)
    return features if shape.layout == "tokens" else features.flatten(2).transpose(1, 2)


def from_positions(positions: Tensor, shape: FeatureShape, extent: Sequence[int] = ()) -> Tensor:
    """Return ``[B, P, D]`` in the layout of ``shape``; ``extent`` is height and breadth of a map."""
    if shape.layout == "vector":
        return positions.squeeze(1)
    return positions if shape.layout == "tokens" else positions.transpose(1, 2).unflatten(2, tuple(extent))


def _drawn(*shape: int, fan_in: int) -> Tensor:
    # Uniform with variance 1 / fan_in.
    bound = (3.0 / fan_in) ** 0.5
    return torch.empty(*shape).uniform_(-bound, bound)
