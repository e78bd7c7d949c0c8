"""Names of the columns in a table of predictions: unique, and the same whichever tasks are asked."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import task_kind

__all__ = ["ROW_NAMES", "column_notes", "output_name", "row_name"]

ROW_NAMES = ("row", "file")
"""What the column that names the rows is called: rows of a table, or picture files."""


def output_name(name: str, task: str, tasks: Collection[str]) -> str:
    """Return what the column ``name`` of a task's predictions is called.

    A column called like its task keeps its name; one called like another task gets a number.

    Args:
        name: What the task's kind calls it.
        task: The task.
        tasks: Names of all tasks of the run.

    Example:
        >>> output_name("spam_probability", "spam", ["spam", "spam_probability"])
        'spam_probability_2'
    """
    # A column that is its task's own name is what users look for, and no two tasks share it.
    return name if name == task else _free(name, tasks)


def row_name(name: Hashable, tasks: Collection[str]) -> Hashable:
    """Return what the column that names the rows is called, None if it has no name."""
    return _free(name, tasks) if isinstance(name, str) else name


def _free(name: str, taken: Collection[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def column_notes(specs: Sequence[TaskSpec], targets: Mapping[str, NDArray[Any]], *, images: bool = False) -> list[str]:
    """Return which columns of the predictions get another name than usual since a target has that one.

    Args:
        specs: The tasks.
        targets: Their targets, ``N`` rows each.
        images: Whether rows are pictures.
    """
    tasks = [spec.name for spec in specs]
    notes = []
    usual = ROW_NAMES[images]
    if usual in tasks:
        notes.append(f"A target is called {usual!r}, so predictions name their rows in the column {row_name(usual, tasks)!r}.")
    for spec in specs:
        kind = task_kind(spec)
        if kind.over_positions:
            continue
        # One row of zeros is enough to learn the names of the columns.
        answers = np.zeros(kind.answer_shape(spec, (1, *targets[spec.name].shape[1:])))
        for name in kind.table(spec, answers, probabilities=True):
            found = output_name(name, spec.name, tasks)
            if found != name:
                notes.append(
                    f"Predictions of {spec.name!r} have a column {name!r}, and so do those of another target: it is called "
                    f"{found!r}."
                )
    return notes
