"""One of several classes, one answer a row. Loss: cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.data.reading.target_cells import TargetCells, TargetRequest
from graftwork.interfaces.metric import Array
from graftwork.tasks.answers import SURE
from graftwork.tasks.categorical import Categorical
from graftwork.tasks.classes import ClassKind
from graftwork.tasks.metrics import labels
from graftwork.tasks.thresholds import threshold_problems

__all__ = ["KIND", "Multiclass"]


class Multiclass(Categorical, ClassKind):
    """Targets ``[N]`` int64, class index, -1 where missing; ``size`` logits; answers are probabilities ``[N, size]``.

    ``details["thresholds"]`` holds a number for each class: the class is chosen whose probability is the largest multiple of it; the
    most probable one without them.
    """

    name = "multiclass"
    words = "one of several classes"
    metrics = (labels.ACCURACY, labels.BALANCED_ACCURACY, labels.F1_MACRO, labels.LOG_LOSS)

    has_class_thresholds = True

    def problems(self, spec: TaskSpec) -> Sequence[str]:
        """Return a problem unless smoothing, weights and thresholds are in their ranges."""
        return (*super().problems(spec), *threshold_problems(spec))

    def raw_output(self, spec: TaskSpec, answers: Array) -> Array:
        """Return the logarithms of the probabilities."""
        return np.log(np.clip(answers, SURE / spec.size, None))

    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return nothing: any classes do."""
        return ""


KIND = Multiclass()
