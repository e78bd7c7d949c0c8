"""Balancer: per-task losses in, ``.grad`` out. Three small families, so that no method carries what it does not need.

- :class:`WeightBalancer` turns ``T`` losses into one scalar (uncertainty weighting, DWA, plain sum).
- :class:`JacobianBalancer` (``methods.optimization.jacobian``) hands the ``T x P`` matrix of exact per-task gradients to an aggregator.
- :class:`RepresentationBalancer` (same module) hands over gradients of the shared representation instead: one backward pass through the
  trunk.

How the hardest systems fit:

- F-MTL perturbs the weights per task and needs the losses again at the moved weights, on the same batch with the same dropout: that is
  ``BackwardContext.recompute``. It aggregates two Jacobians with any aggregator, so aggregators stay plain functions of a matrix.
- TRAM's ascent radius is a divergence between two predictions of the same batch: ``recompute`` returns outputs beside losses, and the
  copy of the weights before the last step is state of the balancer, saved by ``state_dict``.
- Annealed gradient noise acts after any balancer and before the optimiser: it is a callback of the loop (``before_step``) with its own
  generator and counter, not a balancer, so that it combines with all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

__all__ = ["BackwardContext", "Balancer", "WeightBalancer"]


@dataclass(frozen=True, slots=True)
class BackwardContext:
    """What a balancer may use besides the losses."""

    shared: Sequence[nn.Parameter]
    """Parameters that several tasks use and that require a gradient."""
    owned: Sequence[Sequence[nn.Parameter]]
    """Per task, in the order of the losses: the parameters that only this task uses."""
    representation: Tensor | None
    """The shared representation, part of the graph of all losses; None if the model has none."""
    step: int
    """Number of finished optimiser steps."""
    recompute: Callable[[], tuple[Mapping[str, Tensor], Tensor]] | None = None
    """Runs the forward pass of the same batch again, with the same random draws, at the parameters' present values; returns outputs and
    losses ``[T]``. None where the caller cannot repeat the batch."""


class Balancer(ABC):
    """Decides how the tasks' losses move the shared parameters."""

    @abstractmethod
    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add gradients to ``.grad`` of all parameters.

        Args:
            losses: One differentiable loss per task, shape ``[T]``; a task without labels in the batch has loss 0 without gradient.
            context: Parameters and representation.

        Returns:
            The weights that the tasks got, shape ``[T]``, if the method has such; for diagnostics.
        """

    def parameters(self) -> list[nn.Parameter]:
        """Return learned parameters of the balancer itself (uncertainty weights, say); the loop optimises them along."""
        return []

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Be told the mean training loss per task of the past epoch, shape ``[T]``; methods with memory over epochs override it."""

    def reset(self) -> None:
        """Return to the state before the first step."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values that :meth:`load_state_dict` restores, for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class WeightBalancer(Balancer):
    """A balancer that only weighs losses: one backward pass of the weighted sum."""

    @abstractmethod
    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scalar to differentiate and the weights ``[T]`` behind it."""

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Differentiate the scalar once; returns the weights, shape ``[T]``."""
        scalar, weights = self.scalarize(losses)
        if scalar.requires_grad:
            scalar.backward()
        return weights.detach()
