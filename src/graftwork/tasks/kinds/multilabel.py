"""Several labels at once, each of which applies or not. Loss: binary cross-entropy, mean over the known labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_arrays import multilabel_target, numeric_columns, set_vocabulary
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import ColumnCount, LabelColumn, TaskKind
from graftwork.tasks.answers import class_names, listed, logits, named, stacked
from graftwork.tasks.class_weights import weight_problems, with_weights
from graftwork.tasks.metrics import labels, ranking
from graftwork.tasks.thresholds import says_yes, threshold_problems, thresholds_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = ["KIND", "Multilabel"]


class Multilabel(TaskKind):
    """Targets ``[N, size]`` float32, 0 or 1, NaN where missing; ``size`` logits; answers are probabilities ``[N, size]``.

    ``details["thresholds"]`` holds the probability of each label above which it applies; one half without it.
    ``details["class_weights"]`` holds how much rows without and with each label weigh in the loss.
    """

    name = "multilabel"
    words = "several labels at once"
    metrics = (ranking.MEAN_AVERAGE_PRECISION, labels.F1_MACRO, labels.LOG_LOSS)
    reads_columns: ClassVar[ColumnCount] = "one or several"
    reads_lists = True
    one_value_suffices = True
    has_thresholds = True
    can_be_taught = True

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless there is a threshold in (0, 1) for each label and weights are numbers."""
        return (*threshold_problems(spec), *weight_problems(spec))

    def class_weighted(self, spec: TaskSpec, asked: str, target: Array) -> TaskSpec:
        """Return the task with weights of each label's absence and presence."""
        return with_weights(spec, asked, np.stack([(target == 0).sum(axis=0), (target == 1).sum(axis=0)], axis=1))

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size]``."""
        return (target_shape[0], spec.size)

    # --- learning ---

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the binary cross-entropy, mean over known labels."""
        import torch
        from torch.nn import functional as F

        from graftwork.tasks.tensors import label_weights, masked_mean

        known = ~torch.isnan(target)
        # The loss of NaN would be NaN, and its gradient too, even where the mask drops it.
        filled = torch.where(known, target, torch.zeros_like(target))
        weight = label_weights(spec, filled)
        return masked_mean(F.binary_cross_entropy_with_logits(output, filled, weight=weight, reduction="none"), known)

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the binary cross-entropy, mean over all labels."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import label_weights

        return F.binary_cross_entropy_with_logits(output, target, weight=label_weights(spec, target))

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of known labels."""
        return (~target.isnan()).sum()

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the entropy of the labels' frequencies, mean over labels."""
        import torch

        from graftwork.tasks.tensors import label_weights, prior_of_flags

        known, found = ~target.isnan(), target.double()
        weight = label_weights(spec, found.nan_to_num(0.0))
        if weight is None:
            share = torch.nanmean(found, dim=0)
        else:
            share = (weight * found.nan_to_num(0.0)).sum(dim=0) / (weight * known).sum(dim=0)
        # A label that nobody knows counts as undecided, as a constant of one half would be.
        return prior_of_flags(share.nan_to_num(0.5))

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of each label."""
        return output.sigmoid()

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return the logits."""
        return logits(answers)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between Bernoulli distributions."""
        from graftwork.tasks.tensors import bernoulli_divergence

        return bernoulli_divergence(reference, output)

    # --- data ---

    def read_column(self, request: TargetRequest, cells: TargetCells, reason: str) -> InferredTask:
        """Return the task of a column of label sets: lists, or text with separators.

        Raises:
            DataError: If there is no label, or one that is not among those given.
        """
        found = request.classes or set_vocabulary(request.name, cells.values)
        target = multilabel_target(request.name, cells.values, found)
        return InferredTask(self._spec(request, tuple(found)), f"{reason}; {len(found)} labels", target)

    def read_columns(self, request: TargetRequest, frame: pd.DataFrame | Table) -> InferredTask:
        """Return the task of several columns of 0 and 1, one a label.

        Raises:
            DataError: If a cell is something else.
        """
        numbers = numeric_columns(request, frame)
        # NaN is no value here: empty cells are labels not known.
        if not set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}:
            raise DataError(
                f"Target {request.name!r} is to be multilabel, so its columns may hold 0 and 1 only. Choose "
                f"regression, or repair the columns."
            )
        reason = f"{len(request.columns)} columns of 0 and 1"
        return InferredTask(self._spec(request, request.columns), reason, numbers.astype(np.float32))

    def _spec(self, request: TargetRequest, found: tuple[str, ...]) -> TaskSpec:
        return TaskSpec(
            name=request.name, kind=self.name, size=len(found), classes=found, columns=request.columns, metric=request.metric
        )

    def label_columns(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return one flag a label."""
        return [LabelColumn("flag", target[:, index]) for index in range(target.shape[1])]

    # --- people ---

    def size_words(self, spec: TaskSpec) -> str:
        """Return the number of labels."""
        return f" with {max(len(spec.classes), 2)} classes"

    def table(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
        """Return ``task[label]`` with the probability of each label."""
        return {f"{spec.name}[{name}]": values[:, index] for index, name in enumerate(class_names(spec, values.shape[1]))}

    def read_answers(self, spec: TaskSpec, columns: Mapping[str, Array], *, hard: float) -> Array | None:
        """Return the columns ``task[label]``."""
        return stacked(spec.name, spec.classes or spec.columns, columns)

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``value`` (names of the labels above their thresholds) and ``probabilities`` by label."""
        names = class_names(spec, values.shape[1])
        found, limits = [], dict(zip(names, thresholds_of(spec).astype(values.dtype).tolist(), strict=False))
        for row in zip(*(listed(values[:, index]) for index in range(values.shape[1])), strict=True):
            group = dict(zip(names, row, strict=True))
            chosen = [name for name, share in group.items() if share is not None and share > limits.get(name, 0.5)]
            found.append({"value": chosen, "probabilities": group})
        return found

    def describe(self, spec: TaskSpec, value: Array, *, is_prediction: bool) -> str:
        """Return the names of the labels that apply."""
        # Nothing is known, which is not the same as "none applies".
        if np.isnan(value).all():
            return ""
        applies = says_yes(spec, np.reshape(value, (1, -1)))[0] if is_prediction else np.nan_to_num(value) > 0.5
        names = [named(spec, int(index)) for index in np.flatnonzero(applies)]
        return ", ".join(names) or "none"

    def is_right(self, spec: TaskSpec, truth: Array, prediction: Array) -> bool | None:
        """Return whether all labels are right; None if one is not known."""
        if np.isnan(truth).any():
            return None
        return bool((says_yes(spec, np.reshape(prediction, (1, -1)))[0] == (truth > 0.5)).all())


KIND = Multilabel()
