"""SHERL: early blocks run without gradients, their states are merged with redundancy taken out, and the last blocks go on from there.

Paper: Diao et al., "SHERL: Synthesizing High Accuracy and Efficient Memory for Resource-Limited Transfer Learning", ECCV 2024,
https://arxiv.org/abs/2407.07523 (code: Paranioar/SHERL).

Symbols: ``h_i`` = states before the first block and after each early one; ``z_i`` = ``down[i](h_i)``, of width ``d`` = ``hidden``;
guide ``g`` = the last ``z``; ``red_i = sum_j relu(cos(z_i, z_j))`` over the shallow ones; ``a_i`` = ``relu(score(z_i * g)) / red_i``,
divided by their sum; ``out = norm(up(relu(sum_i a_i z_i + g))) + tanh(gate / 0.1) * h_last``.

Departures: chains over tokens alone (the paper has a variant for convolutional networks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.methods.tuning.side_tuning import SideTuning
from graftwork.nn.side import SideNetwork

__all__ = ["SHERL", "RoutedNetwork", "merged_depths", "redundancy"]

_TEMPERATURE, _EPSILON = 0.1, 1e-8
_DROPOUT = 0.1


class RoutedNetwork(SideNetwork):
    """The network between the early and the late blocks; see this module's docstring.

    Args:
        trunk: A chain of blocks over tokens.
        hidden: Width ``d`` of the network.
        late: Number of blocks that run with gradients behind it.
        divides: Whether weights of depths are divided by their redundancy; False for comparison.

    Raises:
        ConfigError: If blocks have no tokens of one width, or there are too few of them.
    """

    def __init__(self, trunk: BlockBackbone, *, hidden: int, late: int = 1, divides: bool = True) -> None:
        super().__init__()
        shapes = trunk.block_shapes()
        if any(shape.layout != "tokens" or shape.width != shapes[0].width for shape in shapes):
            raise ConfigError(
                f"SHERL merges tokens of one width; blocks of this {type(trunk).__name__} give something else. Choose UniPT."
            )
        if not 1 <= late < len(shapes):
            raise ConfigError(f"`late` must be from 1 to {len(shapes) - 1} blocks of this trunk; got {late!r}.")
        self.hidden, self.late, self.divides, self.early = hidden, late, divides, len(shapes) - late
        self.depths = tuple(range(self.early))
        width = shapes[0].width
        self.down = nn.ModuleList(nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden)) for _ in range(self.early + 1))
        self.score = nn.Linear(hidden, 1)
        self.up = nn.Sequential(nn.ReLU(), nn.Linear(hidden, width), nn.LayerNorm(width), nn.Dropout(_DROPOUT))
        self.gate = nn.Parameter(torch.zeros(1))

    @property
    def settings(self) -> dict[str, Any]:
        """The keywords."""
        return {"hidden": self.hidden, "late": self.late, "divides": self.divides}

    def merge(self, states: list[Tensor]) -> Tensor:
        """Return what enters the late blocks, ``[B, n, width]``, from the states of all early depths."""
        shallow = [down(state) for down, state in zip(self.down, states, strict=True)]
        merged = merged_depths(torch.stack(shallow[:-1], dim=2), shallow[-1], self.score, divides=self.divides)
        answer: Tensor = self.up(merged) + torch.tanh(self.gate / _TEMPERATURE) * states[-1]
        return answer

    def forward(self, states: Mapping[int, Tensor], features: Tensor) -> Tensor:
        """Refuse: this network runs blocks of the trunk, so that it has to be asked through the trunk.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError("SHERL's network stands inside of the trunk; call the trunk that it is attached to.")

    def answer(self, trunk: BlockBackbone, plain: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the trunk's features, computed by its late blocks from what was merged."""
        with torch.no_grad():
            states = trunk.embed(inputs)
            read = [states]
            for number in range(self.early):
                states = trunk.run_block(number, states, inputs)
                read.append(states)
        states = self.merge(read)
        for number in range(self.early, self.early + self.late):
            states = trunk.run_block(number, states, inputs)
        return trunk.finish(states, inputs)


def redundancy(shallow: Tensor) -> Tensor:
    """Return how much of each depth's token the others say as well: the sum of positive cosines, itself included.

    Args:
        shallow: ``[..., depths, d]``.

    Returns:
        ``[..., depths, 1]``, at least 1 where a state is not 0.
    """
    unit = F.normalize(shallow, dim=-1)
    return torch.relu(unit @ unit.transpose(-2, -1)).sum(dim=-1, keepdim=True)


def merged_depths(shallow: Tensor, guide: Tensor, score: nn.Module, *, divides: bool = True) -> Tensor:
    """Return each token's shallow states, weighed, plus its guide, ``[B, n, d]``.

    Args:
        shallow: States of the shallow depths, ``[B, n, depths, d]``.
        guide: Those of the deepest one, ``[B, n, d]``.
        score: From ``[..., d]`` to ``[..., 1]``.
        divides: Whether weights are divided by :func:`redundancy`.
    """
    raw = torch.relu(score(shallow * guide.unsqueeze(2)))
    if divides:
        raw = raw / redundancy(shallow).clamp(min=_EPSILON)
    weights = raw / raw.sum(dim=2, keepdim=True).clamp(min=_EPSILON)
    # [B, n, 1, depths] with [B, n, depths, d].
    return (weights.transpose(2, 3) @ shallow).squeeze(2) + guide


class SHERL(SideTuning):
    """A network between early and late blocks learns; both are frozen, and gradients pass through the late ones alone.

    Args:
        factor: Its width is that of the trunk's blocks divided by this, at least 1.
        hidden: Its width in place of that; None takes the factor.
        late: Number of late blocks, at least 1 and fewer than there are.
        divides: Whether weights of depths are divided by their redundancy; False for comparison.
        working_size: Working resolution in pixels of an image backbone that resizes; None leaves it. Others ignore it.

    Raises:
        ConfigError: If a setting is out of range; on :meth:`attach`, if the model is no chain of blocks over tokens of one width.
    """

    def __init__(
        self,
        *,
        factor: int = 2,
        hidden: int | None = None,
        late: int = 1,
        divides: bool = True,
        working_size: int | None = None,
    ) -> None:
        super().__init__(working_size)
        if factor < 1 or late < 1 or (hidden is not None and hidden < 1):
            raise ConfigError(f"`factor`, `late` and `hidden` must be at least 1; got {factor!r}, {late!r} and {hidden!r}.")
        self.factor, self.hidden, self.late, self.divides = factor, hidden, late, divides

    def make(self, trunk: BlockBackbone) -> RoutedNetwork:
        """Return the network for a trunk."""
        hidden = max(1, trunk.block_shapes()[0].width // self.factor) if self.hidden is None else self.hidden
        return RoutedNetwork(trunk, hidden=hidden, late=self.late, divides=self.divides)
