"""Vectors that lie close for rows of the same id and apart for others. Loss: supervised contrastive (Khosla et al., "Supervised
Contrastive Learning", NeurIPS 2020) over the rows of a batch; with two rows an id it is the usual loss of contrastive pairs.

An id teaches only in batches that hold two of its rows. With few rows an id and many ids take large batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn, TaskKind
from graftwork.tasks.answers import listed
from graftwork.tasks.metrics import retrieval

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "NUM_VALUES", "TEMPERATURE", "Embedding"]

NUM_VALUES = 32
"""Length of the vectors of a task that is read from a table."""
TEMPERATURE = 0.1
"""What cosines are divided by before the softmax; ``details["temperature"]`` replaces it."""


class Embedding(TaskKind):
    """Targets ``[N]`` int64, id of each row, -1 where missing; ``size`` values; answers are vectors of length 1, ``[N,
    size]``."""

    name = "embedding"
    words = "vector, close for rows of one id"
    metrics = (retrieval.RECALL_1, retrieval.RECALL_5, retrieval.RECALL_10)
    reads_columns: ClassVar[ColumnCount] = "one"
    compares_rows = True
    own_space = True
    answer_fields: ClassVar = {
        "vector": {
            "type": "array",
            "items": {"type": ["number", "null"]},
            "description": "Values of the row's vector, of length 1.",
        }
    }

    def temperature(self, spec: TaskSpec) -> float:
        """Return what cosines are divided by."""
        return float(spec.details.get("temperature", TEMPERATURE))

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless the temperature is above 0."""
        value = spec.details.get("temperature", TEMPERATURE)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < float("inf"):
            return ()
        return (f"details['temperature'] must be a number above 0; got {value!r}.",)

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size]``."""
        return (target_shape[0], spec.size)

    # --- learning ---

    def _terms(self, spec: TaskSpec, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return each row's loss, ``[B]``, relative to that of a random guess, and which rows have a partner."""
        import torch
        from torch.nn import functional as F

        known = target >= 0
        # [B, B]: row i against row j; unknown ids are no candidates for anybody.
        other = ~torch.eye(len(target), dtype=torch.bool, device=target.device) & known
        # In half precision 1e-6 is still above 0, the default 1e-12 is not.
        unit = F.normalize(output, dim=1, eps=1e-6)
        # A finite stand-in for "not compared": minus infinity would make rows without any other row NaN.
        logits = (unit @ unit.T / self.temperature(spec)).masked_fill(~other, -1e4)
        # Two missing ids are both -1 and must not count as the same id.
        same = other & (target.unsqueeze(1) == target) & known.unsqueeze(1)
        partners = same.sum(dim=1)
        share = F.log_softmax(logits, dim=1)
        # The mean over partners stands outside of the logarithm (the paper's L_out).
        each = -torch.where(same, share, torch.zeros_like(share)).sum(dim=1) / partners.clamp(min=1)
        # Guessing among n rows costs log n; divided by it the loss starts near 1 in batches of any size. clamp: log 1 is 0.
        return each / other.sum(dim=1).clamp(min=2).to(each.dtype).log(), partners > 0

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the mean over rows with a partner in the batch of the loss of finding it, over that of a random guess."""
        from graftwork.tasks.tensors import masked_mean

        return masked_mean(*self._terms(spec, output, target))

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of rows with a partner in the batch."""
        # The diagonal is part of it, so a partner means more than one.
        same = (target.unsqueeze(1) == target) & (target >= 0)
        return (same.sum(dim=1) > 1).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return 1: vectors that are all the same find no row better than a random guess does."""
        import torch

        known = target[target >= 0]
        # NaN says that no row has a partner; the caller replaces it.
        return torch.tensor(1.0 if len(known) > len(known.unique()) else float("nan"))

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return vectors of length 1."""
        from torch.nn import functional as F

        return F.normalize(output, dim=1, eps=1e-6)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return one minus the cosine, mean over rows."""
        from torch.nn import functional as F

        return (1.0 - F.cosine_similarity(reference, output, dim=1, eps=1e-6)).mean()

    # --- data ---

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task of a column of ids.

        Raises:
            DataError: If no id has two rows.
        """
        counts = np.array(cells.counts)
        if not (counts > 1).any():
            raise DataError(
                f"Target {request.name!r}: none of the {len(counts)} ids has two rows, so no rows belong "
                f"together. Name a column that repeats."
            )
        alone = int((counts == 1).sum())
        spec = TaskSpec(name=request.name, kind=self.name, size=NUM_VALUES, columns=request.columns, metric=request.metric)
        note = f"; {alone} of them have one row and teach nothing" if alone else ""
        return InferredTask(spec, f"{reason}; {len(counts)} ids{note}", cells.codes)

    def row_groups(self, spec: TaskSpec, target: Array) -> Array | None:
        """Return the ids: rows are found among those of their split."""
        return target

    def strata(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return nothing: ids are not spread over splits but kept together."""
        return []

    # --- people ---

    def size_words(self, spec: TaskSpec) -> str:
        """Return the length of the vectors."""
        return f" of {spec.size} values"

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task[0]``, ``task[1]`` ..., the values of the vector."""
        return {f"{spec.name}[{index}]": values[:, index] for index in range(values.shape[1])}

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``vector``, a list of numbers."""
        return [{"vector": listed(row)} for row in values]


KIND = Embedding()
