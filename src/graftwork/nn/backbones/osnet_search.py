"""The search for where OSNet needs instance norms: every block is a mixture of its four candidates, and what weighs them is
learned with the network.

Paper: Zhou et al., "Learning Generalisable Omni-Scale Representations for Person Re-Identification", TPAMI 2021,
https://arxiv.org/abs/1910.06827, section 3.4. With pi of a block, the weights of its candidates are softmax((log relu(pi) +
gumbel) / lambda), the noise fresh in every forward pass in training and left out in evaluation; lambda goes from 10 to 1. At the
end each block takes the candidate of its largest pi, and the network is trained anew. As in the authors' code, norms have neither
scale nor shift during the search, so that no candidate can make up for a small weight.

``pi`` is a vector for each block, and vectors do not decay in the training loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.osnet import OSBlock, OSNet, Placement

__all__ = ["CANDIDATES", "OSNetSearch", "SearchableBlock", "temperature_at"]

CANDIDATES: tuple[Placement, ...] = get_args(Placement)
"""Placements that a block chooses from."""
_TINY = 1e-12


class SearchableBlock(nn.Module):
    """A mixture of one block for each candidate; they share no weight.

    Args:
        width_in: Channels of the input.
        width_out: Channels of the output.
        settings: Further arguments of :class:`~graftwork.nn.backbones.osnet.OSBlock`.
    """

    def __init__(self, width_in: int, width_out: int, **settings: Any) -> None:
        super().__init__()
        self.candidates = nn.ModuleList(OSBlock(width_in, width_out, placement=name, **settings) for name in CANDIDATES)
        # Equal at the start, and at 1: relu must let the gradient through.
        self.pi = nn.Parameter(torch.ones(len(CANDIDATES)))
        self.temperature = 1.0
        """Lambda: the higher, the more alike the weights."""

    def weights(self) -> Tensor:
        """Return the weights of the candidates, ``[4]``; in training each call draws new noise from torch's global generator."""
        scores = torch.log(torch.relu(self.pi) + _TINY)
        if self.training:
            # Gumbel noise: -log(-log u) with u uniform. The constants keep both logarithms finite.
            scores = scores - torch.log(-torch.log(torch.rand_like(scores) + _TINY) + _TINY)
        return torch.softmax(scores / self.temperature, dim=0)

    @property
    def best(self) -> Placement:
        """Candidate of the largest ``pi``; the first of equals."""
        return CANDIDATES[int(self.pi.argmax())]

    def forward(self, state: Tensor) -> Tensor:
        """Return the weighted sum of what the candidates make of a state, ``[B, width_out, h, w]``."""
        parts = [weight * candidate(state) for weight, candidate in zip(self.weights(), self.candidates, strict=True)]
        return torch.stack(parts).sum(dim=0)


class OSNetSearch(OSNet):
    """An :class:`~graftwork.nn.backbones.osnet.OSNet` of searchable blocks, its stem with an instance norm.

    Set the temperature while it is trained (:func:`temperature_at`), and read :meth:`placement` at the end.

    Args:
        settings: Arguments of :class:`~graftwork.nn.backbones.osnet.OSNet` but ``placement`` and ``stem_norm``.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(stem_norm="instance", **settings)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d):
                # Scale 1 and shift 0, as they were made, stay so.
                module.requires_grad_(False)

    def make_block(self, width_in: int, width_out: int, **settings: Any) -> nn.Module:
        """Return a mixture of candidates."""
        settings.pop("placement")
        return SearchableBlock(width_in, width_out, **settings)

    def searched(self) -> Sequence[SearchableBlock]:
        """Return the searchable blocks in order."""
        return [block for block in self.blocks if isinstance(block, SearchableBlock)]

    def set_temperature(self, temperature: float) -> None:
        """Set lambda of every block.

        Raises:
            ConfigError: If it is not above 0.
        """
        if not temperature > 0:
            raise ConfigError(f"The temperature of the search must be above 0; got {temperature!r}.")
        for block in self.searched():
            block.temperature = float(temperature)

    def placement(self) -> tuple[Placement, ...]:
        """Return what the search found: for each block the candidate of the largest pi."""
        return tuple(block.best for block in self.searched())


def temperature_at(progress: float, *, start: float = 10.0, end: float = 1.0, pieces: int = 6) -> float:
    """Return lambda when a share ``progress`` of the search is done: halved after each of ``pieces`` equal pieces, down to
    ``end``.

    Example:
        >>> [temperature_at(progress) for progress in (0.0, 0.2, 0.4, 0.6, 0.9)]
        [10.0, 5.0, 2.5, 1.25, 1.0]
    """
    return max(end, start * 0.5 ** int(progress * pieces))
