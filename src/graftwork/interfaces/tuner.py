"""Tuner: which parts of a backbone learn, and what is added to it.

A tuner stays with the model after training: :meth:`Tuner.delta` takes what was learned out as a
:class:`~graftwork.interfaces.delta.Delta`.

How the hardest systems fit:

- Side networks (UniPT, SHERL) run on detached hidden states and cannot be folded into the trunk: ``fold`` raises
  ``ConfigError``, and their delta holds the weights of the side network, without dense tensors.
- Skills that are mixed per task (MHR) keep which task is active as state of the attached layers; ``fold`` and ``delta`` take the
  mixture of the task that is active.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import nn

from graftwork.interfaces.delta import Delta

__all__ = ["Tuner"]


class Tuner(ABC):
    """Attaches to any ``nn.Module`` by module names; never knows one architecture."""

    @abstractmethod
    def attach(self, model: nn.Module) -> None:
        """Freeze what stays, add what learns, in place. Right after attaching, the model computes what it did before;
        prompts change it a little, and side networks answer in its place from the start."""

    @abstractmethod
    def trainable(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that learn."""

    @abstractmethod
    def delta(self, model: nn.Module | None = None) -> Delta:
        """Return what was learned, as copies: the difference to the model that the tuner was attached to.

        Args:
            model: A copy of the attached model, with other weights (the averaged ones, say); None takes the attached model
                itself.

        Raises:
            ConfigError: If the tuner is attached to no model, or was folded.
        """

    @abstractmethod
    def fold(self) -> None:
        """Write what was learned into plain weights, so that the model has its original structure and speed again.

        Raises:
            ConfigError: If it is no difference of weights (adapters, prompts, side networks).
        """

    def keeps_features_fixed(self) -> bool:
        """Whether features never change, so that they can be computed once and kept in a feature store."""
        return False
