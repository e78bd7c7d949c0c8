"""Yes or no, one answer a row. Loss: binary cross-entropy of the logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.scales import positive_word
from graftwork.data.reading.target_cells import TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.tasks.answers import flat_rows, logits
from graftwork.tasks.class_weights import weight_problems
from graftwork.tasks.classes import ClassKind
from graftwork.tasks.metrics import labels, ranking
from graftwork.tasks.thresholds import says_yes, threshold_problems

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "Binary"]


class Binary(ClassKind):
    """Targets ``[N]`` int64, 0 or 1, -1 where missing; 1 logit; answers are the probability of class 1, ``[N]``.

    ``details["thresholds"]`` holds the probability above which class 1 is chosen, a list of one number; one half without it.
    ``details["class_weights"]`` holds how much rows of either class weigh in the loss.
    """

    name = "binary"
    words = "yes or no"
    metrics = (
        ranking.ROC_AUC,
        ranking.AVERAGE_PRECISION,
        labels.ACCURACY,
        labels.BALANCED_ACCURACY,
        labels.F1_MACRO,
        labels.LOG_LOSS,
    )

    has_thresholds = True

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless the threshold is in (0, 1) and weights are numbers."""
        return (*threshold_problems(spec), *weight_problems(spec))

    def num_classes(self, spec: TaskSpec) -> int:
        """Return 2."""
        return 2

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N]``."""
        return (target_shape[0],)

    def spec_size(self, order: Sequence[str]) -> int:
        """Return 1: one probability says both."""
        return 1

    # --- learning ---

    def loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the binary cross-entropy, mean over labelled rows."""
        from graftwork.tasks.tensors import row_weights, threshold_loss

        return threshold_loss(output, target, row_weights(spec, target))

    def complete_loss(self, spec: TaskSpec, output: Tensor, target: Tensor, *, robust: bool = False) -> Tensor:
        """Return the binary cross-entropy, mean over rows."""
        from torch.nn import functional as F

        from graftwork.tasks.tensors import row_weights

        # Weights have a mean of 1 over the training rows, so that the sum is divided by the number of rows.
        return F.binary_cross_entropy_with_logits(output.squeeze(1), target.to(output.dtype), weight=row_weights(spec, target))

    def prior_loss(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the entropy of the class frequencies."""
        import torch

        from graftwork.tasks.tensors import prior_of_flags, share_above

        return prior_of_flags(share_above(spec, target, torch.arange(spec.num_outputs)))

    def decode(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probability of class 1, ``[N]``."""
        return output.sigmoid().squeeze(1)

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return the logits."""
        return logits(flat_rows(answers))

    def class_probabilities(self, spec: TaskSpec, output: Tensor) -> Tensor:
        """Return the probabilities of both classes."""
        import torch

        yes = output.sigmoid()
        return torch.cat([1.0 - yes, yes], dim=1)

    def divergence(self, spec: TaskSpec, reference: Tensor, output: Tensor) -> Tensor:
        """Return the divergence between Bernoulli distributions."""
        from graftwork.tasks.tensors import bernoulli_divergence

        return bernoulli_divergence(reference, output)

    # --- scoring and data ---

    def scored(self, spec: TaskSpec, target: Array, prediction: Array) -> tuple[Array, Array]:
        """Return both as ``[N]``; a prediction ``[N, 1]`` is one too."""
        if prediction.ndim == 2 and prediction.shape[1] == 1:
            prediction = prediction[:, 0]
        return super().scored(spec, target, prediction)

    def class_order(self, cells: TargetCells) -> list[str]:
        """Return the two classes, that of a word like ``yes`` last."""
        order = super().class_order(cells)
        # The first of two classes is 0, and everybody expects "yes" to be 1.
        if not cells.are_numbers and len(order) == 2 and positive_word(order) == order[0]:
            order.reverse()
        return order

    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return a problem unless there are two classes."""
        if len(order) == 2:
            return ""
        return f"is to be binary but has {len(order)} different values ({short_list(order, 5)}). Choose multiclass."

    # --- people ---

    def shares(self, values: Array) -> Array:
        """Return the probabilities of both classes, ``[N, 2]``."""
        positive = values.reshape(-1)
        return np.stack([1.0 - positive, positive], axis=1)

    def unshared(self, shares: Array) -> Array:
        """Return the probability of class 1, ``[N]``."""
        return shares[:, 1]

    def chosen(self, spec: TaskSpec, values: Array) -> Array:
        """Return class 1 above the threshold, as the metrics do."""
        return says_yes(spec, values.reshape(-1)).astype(np.int64)

    def decided(self, spec: TaskSpec, value: Array) -> int:
        """Return class 1 above the threshold, as the metrics do."""
        return int(says_yes(spec, np.ravel(value))[0])

    def share_of(self, value: Array, index: int) -> float:
        """Return the probability of either class."""
        share = float(np.ravel(value)[0])
        return 1 - share if index == 0 else share


KIND = Binary()
