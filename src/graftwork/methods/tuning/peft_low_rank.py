"""Changes as low-rank factors: exact sums of them, and the best approximation of a given rank.

The best approximation in the Frobenius norm keeps the largest singular values (Eckart and Young, "The approximation of one matrix
by another of lower rank", Psychometrika 1936).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.nn.delta_parts import LowRank, Part

__all__ = ["Truncation", "factors", "is_laid_out", "largest_rank", "summed"]


def is_laid_out(part: Part | None, shape: Sequence[int]) -> bool:
    """Return whether a part is low rank with its factors laid out as those of LoRA: not convLoRA's columns of kernels."""
    return isinstance(part, LowRank) and part.down.shape[1:] == torch.Size(shape)[1:]


def summed(parts: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """Return ``sum_i weights_i * parts_i`` exactly, in float32: ``[B1 B2] [A1; A2] = B1 A1 + B2 A2``."""
    down = torch.cat([part.down.float() for part in parts])
    up = torch.cat([weight * part.factor * part.up.float() for part, weight in zip(parts, weights, strict=True)], dim=1)
    return LowRank(down, up)


def factors(name: str, change: LowRank | Tensor, rank: int) -> tuple[LowRank, float, float]:
    """Return the best approximation of a change by at most ``rank``, and the squared norms of what is lost and of the whole.

    Args:
        name: Name of the tensor, for messages.
        change: The change: factors, or dense, ``[out, in]`` or ``[out, in, height, width]``.
        rank: At least 1; factors of no higher rank come back as they are.

    Raises:
        ConfigError: If the change has one dimension only.
    """
    if isinstance(change, LowRank):
        if len(change.down) <= rank:
            return change, 0.0, 0.0
        # Of the product of two thin matrices: QR leaves a square one of their rank.
        left, small = torch.linalg.qr(change.factor * change.up.flatten(1).double())
        right, other = torch.linalg.qr(change.down.flatten(1).double().T)
        out, values, into = torch.linalg.svd(small @ other.T)
        out, into = left @ out, into @ right.T
        shape = (*change.up.shape[:1], *change.down.shape[1:])
    else:
        if change.ndim < 2:
            raise ConfigError(
                f"The change of {name!r} has one dimension, which an adapter of peft cannot hold. Write a delta file: give --out a name that "
                "ends in .safetensors."
            )
        shape = tuple(change.shape)
        out, values, into = torch.linalg.svd(change.flatten(1).double(), full_matrices=False)
    kept = min(rank, int(torch.count_nonzero(values > values[:1] * 1e-12)) or 1)
    lost, whole = float(values[kept:].square().sum()), float(values.square().sum())
    # The root of each singular value on either side: factors of one size.
    roots = values[:kept].sqrt()
    up, down = out[:, :kept] * roots, roots[:, None] * into[:kept]
    ones = [1] * (len(shape) - 2)
    return LowRank(down.float().reshape(kept, *shape[1:]), up.float().reshape(shape[0], kept, *ones)), lost, whole


@dataclass(slots=True)
class Truncation:
    """How much was lost, over all tensors."""

    rank: int
    lost: float = 0.0
    whole: float = 0.0
    worst: tuple[float, str] = (0.0, "")
    parts: dict[str, LowRank] = field(default_factory=dict)

    def add(self, name: str, change: LowRank | Tensor) -> None:
        """Take the change of one tensor in; see :func:`factors`."""
        self.parts[name], lost, whole = factors(name, change, self.rank)
        if isinstance(change, LowRank) and whole == 0.0:
            whole = float((change.factor * (change.up.flatten(1) @ change.down.flatten(1))).double().square().sum())
        self.lost, self.whole = self.lost + lost, self.whole + whole
        if whole:
            self.worst = max(self.worst, (math.sqrt(lost / whole), name))

    def note(self) -> str:
        """Return what was lost, as a sentence; empty if nothing was."""
        # Below that it is rounding of float32.
        if not self.whole or math.sqrt(self.lost / self.whole) < 1e-6:
            return ""
        return (
            f"rank {self.rank} leaves a relative error of {math.sqrt(self.lost / self.whole):.2%} of the merged change (Frobenius norm), "
            f"{self.worst[0]:.2%} at the worst tensor, {self.worst[1]}; a higher --rank lowers it."
        )


def largest_rank(parts: Sequence[Mapping[str, Part]]) -> int:
    """Return the largest rank of changes that are low rank; 0 if none is."""
    return max((len(part.down) for each in parts for part in each.values() if isinstance(part, LowRank)), default=0)
