"""One of several classes, one answer a row. Loss: cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence

from graftwork.data.reading.target_cells import TargetCells, TargetRequest
from graftwork.tasks.categorical import Categorical
from graftwork.tasks.classes import ClassKind
from graftwork.tasks.metrics import labels

__all__ = ["KIND", "Multiclass"]


class Multiclass(Categorical, ClassKind):
    """Targets ``[N]`` int64, class index, -1 where missing; ``size`` logits; answers are probabilities ``[N, size]``."""

    name = "multiclass"
    words = "one of several classes"
    metrics = (labels.ACCURACY, labels.BALANCED_ACCURACY, labels.F1_MACRO, labels.LOG_LOSS)

    def order_problem(self, request: TargetRequest, cells: TargetCells, order: Sequence[str]) -> str:
        """Return nothing: any classes do."""
        return ""


KIND = Multiclass()
