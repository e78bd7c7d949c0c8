"""Tuner: which parts of a backbone learn, and what is added to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import nn

__all__ = ["Tuner"]


class Tuner(ABC):
    """Attaches to any ``nn.Module`` by module names; never knows one architecture."""

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Freeze what stays, add what learns, in place. Right after attaching, the model computes what it did before."""

    @abstractmethod
    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn."""

    @abstractmethod
    def fold(self) -> None:
        """Write what was learned into plain weights, so that the model has its original structure and speed again."""

    def keeps_features_fixed(self) -> bool:
        """Whether features never change, so that they can be computed once and kept in a feature store."""
        return False
