"""What gives targets away: columns that repeat one, that alone predict one, and numbers that make one up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.column import Column, level_name
from graftwork.data.reading.leaks import LEAK_SCORE, FeatureKeys, single_feature_score
from graftwork.data.reading.notes import fold_by_example
from graftwork.data.reading.relations import relation_findings
from graftwork.data.reading.screening import screened
from graftwork.data.reading.table import Table
from graftwork.data.reading.target_cells import InferredTask
from graftwork.interfaces.task_kind import task_kind

__all__ = ["CopyFinder", "leak_notes"]

Floats = NDArray[np.float64]
_FEW_COLUMNS, _FEW_PAIRS = 100, 1000
"""So many columns, and pairs of column and target, are scored without a filter in front."""
_MOST_SCORES = 200
"""Columns of a wide table that are scored for one target: more findings would say nothing new."""
_FIRST = 16


class CopyFinder:
    """Finds the target that a column repeats.

    Args:
        table: The raw table.
        targets: ``(target, column)`` of all targets' columns.
    """

    def __init__(self, table: Table, targets: Sequence[tuple[str, str]]) -> None:
        self._columns = [(name, table[column]) for name, column in targets]
        numbers = [
            column.numbers().values if column.kind == "numeric" and not column.is_category else None
            for _, column in self._columns
        ]
        # The first known cells of each target rule out nearly all columns at once.
        self._first = [None if values is None else np.flatnonzero(~np.isnan(values))[:_FIRST] for values in numbers]
        self._cells = [
            None if values is None or first is None else values[first] for values, first in zip(numbers, self._first, strict=True)
        ]

    def copied(self, feature: Column) -> str:
        """Return the target that a column repeats wherever the target is known; empty if it repeats none."""
        values = feature.numbers().values if feature.kind == "numeric" and not feature.is_category else None
        for (name, target), first, cells in zip(self._columns, self._first, self._cells, strict=True):
            if first is not None and cells is not None and values is not None and not np.array_equal(values[first], cells):
                continue
            if _same(feature, target):
                return name
        return ""


def _same(feature: Column, target: Column) -> bool:
    """Return whether a feature repeats a target's cells wherever the target is known."""
    if feature.is_nested or target.is_nested:
        return False
    # Numbers are compared by value: 1.0 repeats 1. A category's numbers are names.
    if "numeric" in (feature.kind, target.kind) and not (feature.is_category or target.is_category):
        if feature.kind != target.kind:
            return False
        known = ~np.isnan(target.numbers().values)
        return bool(known.any() and np.array_equal(feature.numbers().values[known], target.numbers().values[known]))
    if not _could_repeat(feature, target):
        return False
    codes, levels = target.named(target.naming)
    known = codes >= 0
    others, other_levels = feature.named(target.naming)
    if not known.any() or (others[known] < 0).any():
        return False
    index = {level: number for number, level in enumerate(levels)}
    # Levels that the target does not have become -1, which equals no known label.
    translated = np.array([index.get(level, -1) for level in other_levels], dtype=np.int64)
    return bool(np.array_equal(translated[others[known]], codes[known]))


def _could_repeat(feature: Column, target: Column) -> bool:
    """Return whether the first known cells of a target are repeated: naming all levels of a million numbers takes seconds."""
    first = np.flatnonzero(target.codes >= 0)[:_FIRST]

    def names(column: Column) -> list[str | None]:
        return [None if text is None else level_name(text, target.naming) for text in column.texts_of(first)]

    return names(feature) == names(target)


def leak_notes(table: Table, names: Sequence[str], tasks: Sequence[InferredTask], seed: int = 0) -> list[str]:
    """Return notes on columns that alone predict a target nearly perfectly, and on numbers that make one up.

    Args:
        table: The raw table.
        names: Feature columns.
        tasks: The tasks, with their targets.
        seed: Draws the rows that are looked at.
    """
    found: list[tuple[str, str]] = []
    for name, task in _worth_a_score(table, names, tasks, seed):
        score = single_feature_score(FeatureKeys.of(table[name]), task.spec, task.target, seed=seed)
        if score is None or score <= LEAK_SCORE:
            continue
        forms = {column.form for column in task_kind(task.spec).label_columns(task.spec, task.target)}
        measure = "R2" if "number" in forms else "accuracy"
        sentence = (
            f"Possible leak: column {name!r} alone predicts target {task.spec.name!r} almost perfectly ({measure} {score:.4f}). "
            "If it is only known once the target is, remove it from the table."
        )
        found.append((f"{name!r} ({task.spec.name!r}, {measure} {score:.4f})", sentence))
    notes = fold_by_example(
        found,
        "Possible leaks: {count} times a column alone predicts a target almost perfectly: {examples}. Remove from the table what "
        "is only known once the targets are.",
    )
    return notes + fold_by_example(
        relation_findings(table, names, tasks, seed),
        "Possible leaks: {count} targets or columns follow from others: {examples}. Leave out what is only known once the "
        "targets are (--ignore).",
    )


def _worth_a_score(
    table: Table, names: Sequence[str], tasks: Sequence[InferredTask], seed: int
) -> list[tuple[str, InferredTask]]:
    """Return the pairs of column and task that are to be scored, in the order of the columns."""
    labels = [(task, column) for task in tasks for column in task_kind(task.spec).label_columns(task.spec, task.target)]
    ordered = [name for name in names if table[name].kind in ("numeric", "date")]
    if (len(ordered) <= _FEW_COLUMNS and len(ordered) * len(tasks) <= _FEW_PAIRS) or not labels:
        return [(name, task) for name in names for task in tasks]

    def keys(column: Column) -> Floats:
        return np.asarray((column.numbers() if column.kind == "numeric" else column.dates()).values)

    readers: list[Callable[[], Floats]] = [partial(keys, table[name]) for name in ordered]
    could = screened(readers, [column for _, column in labels], seed=seed)
    pairs = []
    place = {name: index for index, name in enumerate(ordered)}
    scored = [0] * len(tasks)
    # All values of a target have to follow, so one label column that cannot rules the pair out.
    owners = [[index for index, (owner, _) in enumerate(labels) if owner is task] for task in tasks]
    worth = np.stack([could[:, own].all(axis=1) for own in owners], axis=1).tolist()
    for name in names:
        for number, task in enumerate(tasks):
            if (name not in place or worth[place[name]][number]) and scored[number] < _MOST_SCORES:
                scored[number] += 1
                pairs.append((name, task))
    return pairs
