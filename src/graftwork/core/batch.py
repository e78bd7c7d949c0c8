"""One batch, as every model, loss and objective sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LABELLED", "SEVERAL_TASKS", "UNLABELLED", "Batch"]

LABELLED, UNLABELLED = 0, 1
"""Values of :attr:`Batch.role`."""
SEVERAL_TASKS = -1
"""Value of :attr:`Batch.task_ids` where a row is not one task's own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and targets of ``B`` rows.

    Missing labels are coded in the targets (``-1`` for integer targets, NaN for floating ones); ``mask`` says the same as
    booleans. ``role`` and ``task_ids`` follow from the mask where they are not given.
    """

    inputs: Mapping[str, Tensor]
    """Named inputs, first dimension ``B``; which names exist depends on the kinds of the inputs (see ``data.suite``)."""
    targets: Mapping[str, Tensor]
    """``{task: target}`` laid out as :class:`~graftwork.core.records.TaskSpec` says."""
    mask: Mapping[str, Tensor]
    """``{task: bool [B]}``: whether the row has any label of the task."""
    rows: Tensor
    """Row numbers in the suite, int64 ``[B]``."""
    domain: Tensor
    """Index of the data set or domain of each row, int64 ``[B]``."""
    role: Tensor = None  # type: ignore[assignment]
    """:data:`LABELLED` or :data:`UNLABELLED` (no label of any task), int64 ``[B]``."""
    task_ids: Tensor = None  # type: ignore[assignment]
    """Index of the only task that the row has labels of; :data:`SEVERAL_TASKS` where there are none or more than one. int64
    ``[B]``."""

    def __post_init__(self) -> None:
        if self.role is None or self.task_ids is None:
            role, task_ids = self._from_mask()
            object.__setattr__(self, "role", role if self.role is None else self.role)
            object.__setattr__(self, "task_ids", task_ids if self.task_ids is None else self.task_ids)

    def _from_mask(self) -> tuple[Tensor, Tensor]:
        if not self.mask:  # nothing is said about labels
            return torch.zeros_like(self.rows), torch.full_like(self.rows, SEVERAL_TASKS)
        known = torch.stack(list(self.mask.values()))
        count = known.sum(dim=0)
        # argmax takes no booleans. Where one task alone is known, its index is the only maximum.
        first = known.int().argmax(dim=0)
        role = torch.where(count > 0, LABELLED, UNLABELLED)
        return role, torch.where(count == 1, first, SEVERAL_TASKS)

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on ``device``."""
        return Batch(
            {name: tensor.to(device) for name, tensor in self.inputs.items()},
            {name: tensor.to(device) for name, tensor in self.targets.items()},
            {name: tensor.to(device) for name, tensor in self.mask.items()},
            self.rows.to(device),
            self.domain.to(device),
            self.role.to(device),
            self.task_ids.to(device),
        )

    def take(self, chosen: slice | Tensor) -> Batch:
        """Return some of the rows: a slice, or their places in the batch, int64 ``[n]``."""
        return Batch(
            {name: tensor[chosen] for name, tensor in self.inputs.items()},
            {name: tensor[chosen] for name, tensor in self.targets.items()},
            {name: tensor[chosen] for name, tensor in self.mask.items()},
            self.rows[chosen],
            self.domain[chosen],
            self.role[chosen],
            self.task_ids[chosen],
        )
