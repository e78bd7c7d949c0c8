"""Objective: an extra loss from batch, outputs and taps.

How the hardest systems fit:

- Rep-MTL differentiates the task losses with respect to the representation and then differentiates that: losses and
  representation are handed over as parts of one graph, and the loop calls the objective before anything frees it.
- Domain-adversarial training needs target rows without labels: the plan's training settings ask for them (``quotas``), and they
  come in the batch with ``role`` :data:`~graftwork.core.batch.UNLABELLED` and their ``domain``. The discriminator is
  :attr:`Objective.module`, made in ``bind``, where ``example`` is a batch to find the width of the representation with; how far
  training has come is ``step`` over the horizon of the bound facts.
- Feature distillation needs what a frozen teacher gives for the same rows: it looks stored answers up by ``batch.rows``, or runs
  a teacher (a plain attribute) inside ``loss`` without a gradient. What layers of the student give in the step's own forward pass
  it reads by hooks, for which :meth:`Objective.watching` stands around that pass; projections belong to :attr:`Objective.module`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.interfaces.binding import Binding
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
    """Number of finished steps."""


class Objective(ABC):
    """A term that is added to what the balancer makes of the task losses. Second-order terms are fine: the loop keeps the
    graph."""

    module: nn.Module | None = None
    """What the objective learns itself (a discriminator, projections); made in the constructor or in :meth:`bind`, never later.
    The loop moves it to the device, sets it to training mode, optimises it along, clips its gradients apart from those of the
    model, and saves it whole. It must not hold the model."""

    def bind(self, binding: Binding) -> None:
        """Take model, tasks, facts about the data, device and seed; called once, before the first step.

        Raises:
            ConfigError: If the objective cannot work with them.
        """

    def watching(self, model: SharedModel) -> contextlib.AbstractContextManager[object]:
        """Return what stands around each forward pass of a training step: hooks are put up and taken down there, so that the
        model has none when it is copied, saved or exported."""
        return contextlib.nullcontext()

    @abstractmethod
    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return a scalar. The loop calls ``backward`` on it before the balancer's."""

    def parameters(self) -> list[nn.Parameter]:
        """Return learned parameters of the objective itself that lie outside of :attr:`module`, on the bound device; they never
        decay."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and JSON values for checkpoints; :attr:`module` and :meth:`parameters` are saved by the loop."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
