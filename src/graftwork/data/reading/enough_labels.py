"""Targets with too few rows of a class to be trained, chosen by and judged: said before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import short_list
from graftwork.data.reading.target_cells import InferredTask
from graftwork.data.splits import MIN_UNITS
from graftwork.data.suite import labelled_rows
from graftwork.interfaces.task_kind import task_kind

__all__ = ["judged_tasks"]

LEAST_ROWS = 5
"""Rows that are not of the most frequent class: so many are spread over training, validation and test rows."""
Rows = NDArray[np.int64]


def judged_tasks(tasks: Sequence[InferredTask], splits: Mapping[str, Rows] | None = None) -> tuple[list[InferredTask], list[str]]:
    """Return the tasks that can be judged, and a note about each of the others.

    Args:
        tasks: All tasks.
        splits: Rows of each part; each must hold two classes. None looks at the rows of each class only.

    Raises:
        DataError: If no task can be judged.
    """
    if max(int(labelled_rows(task.target).sum()) for task in tasks) < MIN_UNITS:
        return list(tasks), []  # too few rows of any kind, which the splits say
    faults = {task.spec.name: fault for task in tasks if (fault := _fault(task, splits))}
    kept = [task for task in tasks if task.spec.name not in faults]
    if faults and not kept:
        raise DataError(f"{' '.join(faults.values())} No target is left. Add rows of these classes, or predict something else.")
    return kept, [
        f"{fault} It is left out; the other targets are judged ({short_list(task.spec.name for task in kept)})."
        for fault in faults.values()
    ]


def _fault(task: InferredTask, splits: Mapping[str, Rows] | None) -> str:
    """Return why a task of classes cannot be judged; empty if it can, and for other tasks."""
    columns = task_kind(task.spec).label_columns(task.spec, task.target)
    # Kinds without classes have nothing that could be missing from a split.
    if not columns or any(column.form != "classes" for column in columns):
        return ""
    values = columns[0].values
    counts = np.bincount(values[values >= 0].astype(np.int64), minlength=len(task.spec.classes))
    rows = int(counts.sum())
    others = rows - int(counts.max(initial=0))
    if others < LEAST_ROWS:
        # The most frequent class is not the problem, hence [1:].
        rare = [f"{_named(task, index)} ({counts[index]})" for index in np.argsort(-counts, kind="stable")[1:] if counts[index]]
        return (
            f"Target {task.spec.name!r} has too few rows of all classes but one: {short_list(rare, 5)} of {rows} labelled "
            f"rows; {LEAST_ROWS} are needed, so that training, validation and test rows hold some."
        )
    for part, chosen in (splits or {}).items():
        found = values[chosen]
        if len(np.unique(found[found >= 0])) < 2:
            return (
                f"Target {task.spec.name!r} has one class only in the {part} rows, since its rarer classes are in few groups "
                f"or rows ({others} of {rows} rows are not of the most frequent class)."
            )
    return ""


def _named(task: InferredTask, index: int) -> str:
    return task.spec.classes[index] if index < len(task.spec.classes) else str(index)
