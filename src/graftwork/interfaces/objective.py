"""Objective: an extra loss from batch, outputs and taps.

How the hardest systems fit:

- Rep-MTL differentiates the task losses with respect to the representation and then differentiates that: losses and representation are
  handed over as parts of one graph, and the loop calls the objective before anything frees it.
- DANN and its relatives need target rows without labels: they come in the batch with all labels missing and another ``domain``; the
  discriminator's parameters are the objective's own and join the optimiser.
- ScaleKD and other feature distillation need a frozen teacher's taps on the same inputs: the teacher is a constructor argument, its
  forward pass runs inside ``loss`` without a gradient, and projections are parameters of the objective.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.interfaces.shared_model import SharedModel

__all__ = ["Objective", "ObjectiveInputs"]


@dataclass(frozen=True, slots=True)
class ObjectiveInputs:
    """What an objective may look at in one step."""

    batch: Batch
    model: SharedModel
    outputs: Mapping[str, Tensor]
    losses: Tensor
    """Per-task losses, shape ``[T]``, in the order of ``model.task_names``, part of the graph."""
    representation: Tensor | None
    """The shared representation, part of the graph; None if the model has none."""
    step: int


class Objective(ABC):
    """A term that is added to what the balancer makes of the task losses. Second-order terms are fine: the loop keeps the graph."""

    @abstractmethod
    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return a scalar. The loop calls ``backward`` on it before the balancer's."""

    def parameters(self) -> list[nn.Parameter]:
        """Return learned parameters of the objective itself (a discriminator, say)."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values for checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
