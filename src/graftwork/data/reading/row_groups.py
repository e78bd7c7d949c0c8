"""Which rows the tasks themselves want on one side of every split: the rows of a query, the rows of an id."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graftwork.data.names import short_list
from graftwork.data.reading.target_cells import InferredTask
from graftwork.interfaces.task_kind import task_kind

__all__ = ["task_groups"]

_FEWEST = 30
"""Fewer groups are not kept together: ten is the least that can be split, and a few large ones give poor splits."""


def task_groups(tasks: Sequence[InferredTask]) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the group of each row, int64 ``[N]``, that the first task asks for that asks for any, and notes; None if no task
    does.

    Rows that the task leaves alone are groups of their own.
    """
    wanted = [
        (task.spec.name, found)
        for task in tasks
        if (found := task_kind(task.spec).row_groups(task.spec, task.target)) is not None
    ]
    if not wanted:
        return None, []
    name, found = wanted[0]
    number = len(np.unique(found[found >= 0]))
    if number < _FEWEST:
        return None, [
            f"Target {name!r} compares rows of {number} groups, too few to keep each on one side of the splits: its scores "
            "are those of new rows of known groups."
        ]
    groups = np.asarray(found, dtype=np.int64).copy()
    alone = np.flatnonzero(groups < 0)
    groups[alone] = int(groups.max()) + 1 + np.arange(len(alone))
    notes = [
        f"Target {name!r} compares rows with each other: the rows of each of its {number} groups are on one side of every split."
    ]
    if len(wanted) > 1:
        notes.append(
            f"Rows that {short_list(repr(other) for other, _ in wanted[1:])} compares may be on both sides; "
            f"--group decides otherwise."
        )
    return groups, notes
