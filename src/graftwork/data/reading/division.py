"""How the rows of a table are divided into training, validation and test rows: by time, by the group that the user names, that a
task asks for, or that was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import check_names
from graftwork.data.options import DataOptions
from graftwork.data.reading.enough_labels import judged_tasks
from graftwork.data.reading.grouping import find_group
from graftwork.data.reading.row_groups import task_groups
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import InferredTask
from graftwork.data.reading.time_order import read_times, split_by_time
from graftwork.data.splits import split_rows
from graftwork.data.suite import labelled_rows

__all__ = ["Division", "divide_rows"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """Splits, and what they were made with."""

    tasks: tuple[InferredTask, ...]
    """The tasks that can be judged on these splits."""
    splits: dict[str, Rows]
    groups: Rows | None = None
    """Group of each row, int64 ``[N]``."""
    column: str | None = None
    """The column that the groups come from."""
    crossing: str = ""
    """Why scores on these splits say little; empty if nothing is known against them."""
    in_order: bool = False
    """Whether the rows are divided by time, so that they must not be dealt out anew."""
    times: NDArray[np.float64] | None = None
    """Time of each row, ``[N]``, if they are."""
    first: tuple[str, ...] = ()
    """Notes that are said before all others."""
    notes: tuple[str, ...] = ()


def divide_rows(
    table: Table,
    options: DataOptions,
    tasks: Sequence[InferredTask],
    candidates: Sequence[str],
    *,
    domain: Rows | None = None,
    seed: int = 0,
) -> Division:
    """Split the rows.

    Args:
        table: The raw table.
        options: Holds the user's group or time.
        tasks: The tasks, with their targets.
        candidates: Columns among which a group is looked for, if the user and the tasks ask for none.
        domain: Data set of each row, int64 ``[N]``.
        seed: Seed of the splits.

    Raises:
        DataError: If the group is no column, or there are too few rows or groups, or no task can be judged.
    """
    if options.time is not None:
        return _by_time(table, options.time, tasks)
    named = options.group_in(table.columns)
    if named is not None:
        check_names([named], table.columns, what="--group", where="the table")
        groups, words = _groups(table, named)
        kept, splits, rare = _split(tasks, groups, domain, seed)
        return Division(
            tasks=tuple(kept),
            splits=splits,
            groups=groups,
            column=named,
            notes=(
                f"Rows are grouped by {named!r} ({words[0]} groups): all rows of a group are on one side of every split; it is "
                "no feature.",
                *words[1:],
                *rare,
            ),
        )
    asked, asked_notes = task_groups(tasks)
    crossing, first = "", ""
    if asked is None and not options.is_ungrouped(table.columns):
        found = find_group(table, candidates, tasks)
        crossing = found.crossing
        if found.column:
            groups, words = _groups(table, found.column)
            fault, rows_of = "", f"Rows of one {found.column!r} belong together ({found.reason})"
            try:
                kept, splits, _ = _split(tasks, groups, domain, seed)
            except DataError as error:
                fault = str(error)
            if not fault and len(kept) == len(tasks):
                return Division(
                    tasks=tuple(kept),
                    splits=splits,
                    groups=groups,
                    column=found.column,
                    first=(
                        f"{rows_of}: all of them are on one side of every split, and {found.column!r} is no feature. To split by "
                        "rows instead, say --group none.",
                        *words[1:],
                    ),
                    notes=tuple(asked_notes),
                )
            crossing = (
                f"rows of one {found.column!r} are on both sides of the splits ({found.reason}), since a split by it leaves too "
                "few rows of some class"
            )
    if crossing:
        first = (
            f"Scores of this split flatter, so nothing is asserted: {crossing}. Add groups, or say --group none if new rows will "
            "be of known groups."
        )
    kept, splits, rare = _split(tasks, asked, domain, seed)
    return Division(
        tasks=tuple(kept),
        splits=splits,
        groups=asked,
        crossing=crossing,
        first=(first,) if first else (),
        notes=(*asked_notes, *rare),
    )


def _by_time(table: Table, column: str, tasks: Sequence[InferredTask]) -> Division:
    """Return splits at two times."""
    check_names([column], table.columns, what="--time", where="the table")
    times, is_dates = read_times(table, column)
    labelled = np.any([labelled_rows(task.target) for task in tasks], axis=0)
    splits, spans = split_by_time(times, labelled, is_dates=is_dates)
    kept, rare = judged_tasks(tasks, splits)
    return Division(
        tasks=tuple(kept),
        splits=splits,
        in_order=True,
        times=times,
        first=(f"Rows are divided by {column!r}, the latest ones for the test: {spans}. They are not dealt into folds.",),
        notes=tuple(rare),
    )


def _split(
    tasks: Sequence[InferredTask], groups: Rows | None, domain: Rows | None, seed: int
) -> tuple[list[InferredTask], dict[str, Rows], list[str]]:
    """Return the tasks that can be judged on the splits, these splits, and notes about the other tasks."""
    targets = {task.spec.name: task.target for task in tasks}
    splits = split_rows([task.spec for task in tasks], targets, groups=groups, domain=domain, seed=seed)
    kept, notes = judged_tasks(tasks, splits)
    if len(kept) == len(tasks):
        return kept, splits, notes
    # Fewer tasks are split in another way, and a task that could be judged before may now lack a class.
    kept, splits, more = _split(kept, groups, domain, seed)
    return kept, splits, [*notes, *more]


def _groups(table: Table, group: str) -> tuple[Rows, tuple[str, ...]]:
    """Return group numbers, then how many groups there are and a note; rows without a group are groups of their own."""
    codes, levels = table[group].named(table[group].naming)
    missing = int((codes < 0).sum())
    groups = codes.copy()
    # A new number for each, so that rows without a group do not become one large group.
    groups[codes < 0] = np.arange(len(levels), len(levels) + missing)
    notes = [f"{missing} rows have no value in the group column {group!r}; each counts as a group of its own."] if missing else []
    return groups, (str(len(levels)), *notes)
