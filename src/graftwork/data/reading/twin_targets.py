"""Targets that repeat one another: copies, the same number in another unit, the same classes under other names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.notes import fold_by_example
from graftwork.data.reading.target_cells import InferredTask
from graftwork.interfaces.task_kind import LabelColumn, task_kind

__all__ = ["twin_notes"]

_MOST_TARGETS = 60
_MOST_ROWS = 20_000
_FEWEST = 20
_SHARED = 0.9
"""Least share of a target's labelled rows in which the other one has a label as well."""
_LEFT = 1e-9
"""Share of variance that a straight line may leave; float32 rounds by less."""


def twin_notes(tasks: Sequence[InferredTask]) -> list[str]:
    """Return a line for each set of targets that say the same, looked for among the first 60 and on at most 20,000 rows.

    Args:
        tasks: The tasks, with their targets; those of several columns are left out.
    """
    labels: dict[str, LabelColumn] = {}
    for task in tasks[:_MOST_TARGETS]:
        columns = task_kind(task.spec).label_columns(task.spec, task.target)
        if len(columns) == 1:
            labels[task.spec.name] = columns[0]
    sets: list[list[str]] = []
    for first, second in combinations(labels, 2):
        if not _same(labels[first], labels[second]):
            continue
        known = next((names for names in sets if first in names), None)
        if known is None:
            sets.append([first, second])
        elif second not in known:
            known.append(second)
    found = []
    for names in sets:
        listed = f"{', '.join(map(repr, names[:-1]))} and {names[-1]!r}"
        found.append(
            (
                listed,
                f"Targets {listed} say the same: means over tasks count it {len(names)} times, and what one of them teaches the "
                "others is no news. Leave all but one out, or weigh them with --weight.",
            )
        )
    return fold_by_example(
        found, "{count} sets of targets say the same each, so that means over tasks count them several times: {examples}."
    )


def _same(first: LabelColumn, second: LabelColumn) -> bool:
    if (first.form == "number") != (second.form == "number"):
        return False
    values, others = _numbers(first), _numbers(second)
    known = ~np.isnan(values) & ~np.isnan(others)
    both = int(known.sum())
    if both < _FEWEST or both < _SHARED * max((~np.isnan(values)).sum(), (~np.isnan(others)).sum()):
        return False
    return _on_a_line(values[known], others[known]) if first.form == "number" else _one_to_one(values[known], others[known])


def _numbers(column: LabelColumn) -> NDArray[np.float64]:
    values = np.asarray(column.values).reshape(-1)
    values = values[:: max(1, -(-len(values) // _MOST_ROWS))].astype(np.float64)
    return np.where(values < 0, np.nan, values) if column.form == "classes" else values


def _on_a_line(values: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    values, others = values - values.mean(), others - others.mean()
    spread: Any = (values**2).sum() * (others**2).sum()
    # More than two values: any two of them lie on a line.
    return bool(spread > 0 and len(np.unique(values)) > 2 and 1.0 - (values @ others) ** 2 / spread < _LEFT)


def _one_to_one(values: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    pairs = len(np.unique(np.stack([values, others], axis=1), axis=0))
    return pairs == len(np.unique(values)) == len(np.unique(others)) > 1
