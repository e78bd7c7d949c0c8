"""One of several classes at every position, as in semantic segmentation. Loss: cross-entropy, mean over the known positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import LabelColumn
from graftwork.tasks.categorical import Categorical
from graftwork.tasks.maps import MapKind
from graftwork.tasks.metrics import positions

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KIND", "MulticlassPositions"]

_MAX_CLASSES = 1024
"""Of the commonest class of a row; more would take too much memory."""


class MulticlassPositions(Categorical, MapKind):
    """Targets ``[N, P]`` int64, class index, -1 where missing; ``size`` logits a position; answers are probabilities ``[N, size,
    P]``."""

    name = "multiclass"
    words = "class of each position"
    metrics = (positions.MIOU, positions.PIXEL_ACCURACY)
    aliases: ClassVar = {"dense_multiclass": "pixels"}

    def answer_shape(self, spec: TaskSpec, target_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return ``[N, size, P]``."""
        return (target_shape[0], spec.size, *target_shape[1:])

    # --- learning ---

    def label_count(self, spec: TaskSpec, target: Tensor) -> Tensor:
        """Return the number of known positions."""
        return (target >= 0).sum()

    # --- scoring, data, people ---

    def scored(self, spec: TaskSpec, target: Array, prediction: Array) -> tuple[Array, Array]:
        """Return both; decided classes ``[N, P]`` are a prediction too."""
        if prediction.shape == target.shape:
            return target, prediction
        return super().scored(spec, target, prediction)

    def strata(self, spec: TaskSpec, target: Array) -> list[LabelColumn]:
        """Return the commonest class of each row."""
        flat = target.reshape(len(target), -1)
        size = min(spec.size, _MAX_CLASSES)
        counts = np.stack([(flat == index).sum(axis=1) for index in range(size)], axis=1)
        # Rows without a label get no stratum; argmax alone would call them class 0.
        return [LabelColumn("classes", np.where(counts.any(axis=1), counts.argmax(axis=1), -1), size)]

    def answers(self, spec: TaskSpec, values: Array, *, probabilities: bool = False) -> list[dict[str, Any]]:
        """Return ``map``, class numbers, and ``classes``, their names."""
        classes = list(spec.classes) or [str(index) for index in range(values.shape[1])]
        return [{"map": row.argmax(axis=0).tolist(), "classes": classes} for row in values]


KIND = MulticlassPositions()
