"""One batch, as every model, loss and objective sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs and targets of ``B`` rows.

    Missing labels are coded in the targets (``-1`` for integer targets, NaN for floating ones); ``mask`` says the same as booleans.
    """

    inputs: Mapping[str, Tensor]
    """Named inputs, first dimension ``B``; which names exist depends on the modality (see ``data.suite``)."""
    targets: Mapping[str, Tensor]
    """``{task: target}`` laid out as :class:`~graftwork.core.records.TaskSpec` says."""
    mask: Mapping[str, Tensor]
    """``{task: bool [B]}``: whether the row has any label of the task."""
    rows: Tensor
    """Row numbers in the suite, int64 ``[B]``."""
    domain: Tensor
    """Index of the data set or domain of each row, int64 ``[B]``."""

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on ``device``."""
        move = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        targets = {name: tensor.to(device) for name, tensor in self.targets.items()}
        mask = {name: tensor.to(device) for name, tensor in self.mask.items()}
        return Batch(move, targets, mask, self.rows.to(device), self.domain.to(device))
