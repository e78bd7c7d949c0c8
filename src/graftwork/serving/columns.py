"""From arrays of predictions to the columns of a table that people read. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graftwork.core.records import TaskSpec
from graftwork.interfaces.metric import Array
from graftwork.interfaces.task_kind import task_kind

__all__ = ["interval_columns", "prediction_columns"]


def prediction_columns(spec: TaskSpec, values: Array, *, probabilities: bool = False) -> dict[str, Array]:
    """Return the columns of one task.

    Args:
        spec: The task.
        values: Predictions in the user's units, as ``Learner.predict`` lays them out.
        probabilities: Whether to add one column ``task[class]`` per class of binary, multiclass and ordinal tasks.

    Returns:
        Classification: ``task`` (name of the most probable class; class 1 of a binary task above its threshold) and ``task_probability``
            of that
        class. Multi-label: ``task[label]`` with the probability of each label. Regression: ``task``, or ``task[column]`` if the
        task has
        several values. Other kinds: see their modules.

    Raises:
        ConfigError: If the task predicts per position: a table cannot hold that.
    """
    return task_kind(spec).table(spec, values, probabilities=probabilities)


def interval_columns(columns: Mapping[str, Array], half_widths: Sequence[float] | Array) -> dict[str, Array]:
    """Return the columns ``name_low`` and ``name_high`` for columns of numbers.

    Args:
        columns: What :func:`prediction_columns` returned for a task of numbers.
        half_widths: Distance of the ends from each column; none adds no column.
    """
    found: dict[str, Array] = {}
    for (name, values), width in zip(columns.items(), half_widths, strict=bool(len(half_widths))):
        middle = np.asarray(values, dtype=np.float64)
        found |= {f"{name}_low": middle - width, f"{name}_high": middle + width}
    return found
