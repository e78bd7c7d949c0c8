"""From arrays of predictions to JSON, one object per row and task. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import task_kind

__all__ = ["prediction_rows"]


def prediction_rows(
    specs: Sequence[TaskSpec], values: Mapping[str, Array], *, probabilities: bool = False
) -> list[dict[str, dict[str, Any]]]:
    """Return one object ``{task: prediction}`` per row.

    Args:
        specs: The tasks that were asked.
        values: Their predictions, ``{task: array}``.
        probabilities: Whether to add the probability of every class.

    Returns:
        Per task: ``value`` (class name, number, or names of the labels above 0.5), ``probability`` of that class,
            ``probabilities`` by
        class or label (labels always), ``values`` by column for regressions with several. Tasks that predict per position have
        ``map``,
        rows of pixels: class numbers, probabilities or numbers; with several numbers per pixel one map for each, under ``maps``.
            What is
        not finite is null.
    """
    by_task = [task_kind(spec).answers(spec, values[spec.name], probabilities=probabilities) for spec in specs]
    return [dict(zip((spec.name for spec in specs), row)) for row in zip(*by_task)]
