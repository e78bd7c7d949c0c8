"""Tuner: which parts of a backbone learn, and what is added to it.

How the hardest systems fit:

- UniPT and SHERL train a side network on detached hidden states: ``attach`` sets taps and adds the side network, the trunk runs without a
  gradient, and ``fold`` states that a side network cannot be folded (it raises ``ConfigError``).
- MHR mixes an inventory of low-rank skills per task: the task of each row is state set by the sharing operator before the call
  (``set_active_tasks``), and folding is per task, so ``fold`` folds the mixture of the task that is active.
- X-Cross couples several adapted streams layer by layer: each source is a ``Delta``, and the coupling is a backbone that holds the streams,
  not a tuner that grows a second input.
"""

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
