"""Balancer: per-task losses in, ``.grad`` out. Three small families, so that no method carries what it does not need.

- :class:`WeightBalancer` turns ``T`` losses into one scalar (uncertainty weighting, DWA, plain sum).
- :class:`JacobianBalancer` (``methods.optimization.jacobian``) hands the ``T x P`` matrix of exact per-task gradients to an
  aggregator.
- :class:`RepresentationBalancer` (same module) hands over gradients of the shared representation instead: one backward pass
  through the trunk.

How the hardest systems fit:

- F-MTL perturbs the weights per task and needs the losses again at the moved weights, on the same batch with the same dropout:
  that is ``BackwardContext.recompute``. It aggregates two Jacobians with any aggregator, so aggregators stay plain functions of
  a matrix.
- TRAM's ascent radius is a divergence between two predictions of the same batch: ``recompute`` returns outputs beside losses and
  takes noised inputs, ``tasks`` say what the outputs mean, and the copy of the weights before the last step is state of the
  balancer, saved by ``state_dict``.
- Sharpness-aware steps around any other balancer: ``recompute`` returns the representation as well, so that the inner balancer
  gets a whole context of the moved weights.
- Annealed gradient noise acts after any balancer and before the optimiser: it is a
  :class:`~graftwork.interfaces.transform.GradientTransform`, not a balancer, so that it combines with all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from graftwork.core.records import TaskSpec
from graftwork.interfaces.binding import Binding

__all__ = ["BackwardContext", "Balancer", "ForwardPass", "Recompute", "WeightBalancer"]


class ForwardPass(NamedTuple):
    """What a forward pass gives."""

    outputs: Mapping[str, Tensor]
    """``{task: raw output}``."""
    losses: Tensor
    """One loss per task, shape ``[T]``."""
    representation: Tensor | None
    """The shared representation; None if the model has none."""


class Recompute(Protocol):
    """Repeats the forward pass of the step."""

    def __call__(self, inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
        """Run the model on the same batch again, at the parameters' present values and with the same random draws (dropout).

        Running statistics of normalisation layers are left alone. Auxiliary losses of the model and objectives of the plan are
        not part of it. The random state afterwards is the one before the call.

        Args:
            inputs: Other inputs of the same rows, of equal names and shapes; None takes those of the batch.
        """


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
    recompute: Recompute | None = None
    """Repeats the forward pass; None where the caller cannot, and where the balancer did not ask for it
    (:attr:`Balancer.needs_recompute`)."""
    outputs: Mapping[str, Tensor] | None = None
    """``{task: raw output}`` of the forward pass behind the losses; None where the caller does not hand them over."""
    inputs: Mapping[str, Tensor] | None = None
    """The inputs of the batch, likewise."""
    tasks: Sequence[TaskSpec] = ()
    """The tasks, in the order of the losses, likewise."""
    part: int = 0
    """Which part of the batch this is, if it goes through the model in several (gradient accumulation). The parts' losses add up
    to the batch's."""
    parts: int = 1
    """Number of parts; gradients of several passes belong together, and what follows from all of them is due at the last part."""
    processes: int = 1
    """Number of processes of a data-parallel run; the mean of their losses is the batch's."""
    average: Callable[[Tensor], Tensor] | None = None
    """Averages a tensor over the processes, in place, and returns it; None for one process. Called by all processes or by
    none."""


class Balancer(ABC):
    """Decides how the tasks' losses move the shared parameters."""

    accumulates: bool = False
    """Whether :meth:`backward` can be called part by part."""
    parallel: bool = False
    """Whether it works where each of several processes sees its share of the batch. The loop averages ``.grad`` over the
    processes afterwards."""

    def bind(self, binding: Binding) -> None:
        """Take model, tasks, facts about the data, device and seed; called once, before the first step. A balancer around
        another one passes it on.

        Raises:
            ConfigError: If the balancer cannot work with them.
        """

    @property
    def needs_recompute(self) -> bool:
        """Whether :meth:`backward` calls ``context.recompute``; the loop then remembers the random state before each forward
        pass."""
        return False

    @abstractmethod
    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Add gradients to ``.grad`` of all parameters.

        Args:
            losses: One differentiable loss per task, shape ``[T]``; a task without labels in the batch has loss 0 without
                gradient.
            context: Parameters and representation.

        Returns:
            The weights that the tasks got, shape ``[T]``, if the method has such; for diagnostics.
        """

    def parameters(self) -> list[nn.Parameter]:
        """Return learned parameters of the balancer itself (uncertainty weights, say), on the bound device; the loop optimises
        them along."""
        return []

    def end_epoch(self, mean_losses: Tensor) -> None:
        """Called after each epoch with its mean training loss per task, shape ``[T]``; methods with memory over epochs override
        it."""

    def reset(self) -> None:
        """Return to the state before the first step."""

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values that :meth:`load_state_dict` restores, for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""


class WeightBalancer(Balancer):
    """A balancer that only weighs losses: one backward pass of the weighted sum."""

    accumulates = True
    parallel = True

    @abstractmethod
    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scalar to differentiate and the weights ``[T]`` behind it."""

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        """Differentiate the scalar once; returns the weights, shape ``[T]``."""
        scalar, weights = self.scalarize(losses)
        # No labels in the batch and frozen heads: there is nothing to move.
        if scalar.requires_grad:
            scalar.backward()
        return weights.detach()
