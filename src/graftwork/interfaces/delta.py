"""Delta: anything that tuning adds to a base model.

How the hardest systems fit:

- aTLAS and concrete masks learn coefficients over whole deltas: they only need ``names`` and ``tensor``, and write the combination
  into a functional call; the delta never learns about coefficients.
- Trans-LoRA moves a delta to another base: the new one is trained anew and carries the new base's fingerprint, the old one's hash goes into
  its lineage. CP-LoRA's factors are one tensor for several layers: ``tensor(name)`` expands the slice of one layer when asked.
- Adapters and side networks are no difference of weights: they save and attach, but have no dense ``tensor``; they subclass with
  ``names`` empty and say so, and mergers refuse them with that sentence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

__all__ = ["Delta"]


class Delta(ABC):
    """A difference to a base whose fingerprint it carries. Read tensor by tensor, so that large ones stream."""

    @property
    @abstractmethod
    def base_fingerprint(self) -> str:
        """SHA-256 of the base that this delta belongs to; empty if unknown."""

    @abstractmethod
    def names(self) -> Iterator[str]:
        """Yield the names of the base parameters that differ."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """Return the dense difference of one parameter, in the base parameter's shape."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write safetensors with metadata (kind, base fingerprint, settings), atomically."""
