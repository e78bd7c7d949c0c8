"""Delta: anything that tuning adds to a base model."""

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
