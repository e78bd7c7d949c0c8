"""Train, validation and test rows: stratified over all tasks at once, grouped, by domain, the same for the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.strata import assign_groups, assign_rows, label_matrix, repair_rare_labels
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["FRACTIONS", "IN_ORDER", "MIN_UNITS", "TIMES", "most_judged_rows", "resplit", "split_rows"]

FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
ENOUGH_JUDGED_ROWS, LEAST_FRACTION = 4000, 0.1
"""Validation rows, and test rows, from which on their share of the rows falls, and how far: intervals are narrow then, and rows are
better learned from."""
IN_ORDER = "splits_in_order"
"""Key of ``Suite.raw``: whether the rows are divided by time, and are never dealt out anew."""
TIMES = "times"
"""Key of ``Suite.raw`` where they are: the time of each row, float64 ``[N]``."""
MIN_UNITS = 10
"""Fewest labelled rows (or groups) that can be split into three parts."""

MOST_JUDGED_ROWS, LEAST_JUDGED_ROWS = 50_000, 2000
"""Most validation and most test rows: more of them narrow no interval that matters, and cannot be learned from."""
JUDGED_ANSWERS = 20_000_000
"""Most answers (rows times classes and values of all tasks) of one model on the rows of one part, down to the least number of rows:
models are compared by answers that are all stored."""

Rows = NDArray[np.int64]
Array = NDArray[Any]


def most_judged_rows(tasks: Sequence[TaskSpec]) -> int:
    """Return how many validation rows, and how many test rows, a suite of these tasks gets at most.

    Example:
        >>> most_judged_rows([TaskSpec(name="product", kind="multiclass", size=4000)])
        5000
    """
    outputs = sum(max(task.size, len(task.classes), 1) for task in tasks)
    return int(min(MOST_JUDGED_ROWS, max(LEAST_JUDGED_ROWS, JUDGED_ANSWERS // max(outputs, 1))))


def split_rows(
    tasks: Sequence[TaskSpec],
    targets: Mapping[str, Array],
    *,
    groups: Rows | None = None,
    domain: Rows | None = None,
    seed: int = 0,
    fractions: Mapping[str, float] | None = None,
) -> dict[str, Rows]:
    """Split rows into parts.

    Rows are stratified by domain and by the rarest of their labels over all tasks (classes, labels, quarters of regression
    values). A class that exists has at least one row in ``train``. Rows without any label go to ``train`` (or where their group
    goes).

    Args:
        tasks: The tasks.
        targets: ``{task: target}`` as :class:`~graftwork.core.records.TaskSpec` lays out, ``N`` rows each.
        groups: Group of each row, int64 ``[N]``; rows of one group land in one part.
        domain: Data set or domain of each row, int64 ``[N]``; every domain is spread over all parts.
        seed: Equal seeds give equal splits.
        fractions: Share of each part; the first must be the training part. None is 60 % for training and 20 % each for validation
            and test. Above 20,000 rows these two are 4,000 rows each until that is 10 %, then 10 %, and at most
            :func:`most_judged_rows`.

    Returns:
        ``{part: sorted row numbers}``; the parts are disjoint and cover all rows.

    Raises:
        DataError: If there are fewer than 10 labelled rows, or fewer than 10 groups.
    """
    labelled = np.zeros(len(next(iter(targets.values()))), dtype=bool)
    for task in tasks:
        labelled |= labelled_rows(targets[task.name])
    rows = np.arange(len(labelled))
    fractions = _capped(tasks, int(labelled.sum())) if fractions is None else fractions
    names = tuple(fractions)
    shares = np.array([fractions[name] for name in names], dtype=np.float64)
    shares = shares / shares.sum()
    generator = Seeds(seed).numpy("splits")
    part = np.zeros(len(rows), dtype=np.int64)
    if groups is None:
        # Rows without labels stay in part 0, which is `train`.
        known = rows[labelled]
        _check_enough(len(known), len(names), "labelled rows", "Add rows, or labels for more of them.")
        labels = label_matrix(tasks, {name: target[known] for name, target in targets.items()}, _take(domain, known))
        part[known] = repair_rare_labels(assign_rows(labels, shares, generator), labels)
    else:
        values, unit = np.unique(groups, return_inverse=True)
        # A group without a label is no use to validation or test.
        has_label = np.bincount(unit, weights=labelled, minlength=len(values)) > 0
        remedy = "Group by a column with more different values, add groups, or leave --group out."
        _check_enough(int(has_label.sum()), len(names), "groups with labels", remedy)
        labels = label_matrix(tasks, targets, domain)
        # One part a group, handed to its rows.
        part = assign_groups(unit, labels, labelled, has_label, shares, generator)[unit]
    return {name: rows[part == index] for index, name in enumerate(names)}


def _capped(tasks: Sequence[TaskSpec], num_rows: int) -> dict[str, float]:
    """Return the shares of the parts; what validation and test do not need is learned from."""
    num_rows = max(num_rows, 1)
    most = min(max(LEAST_FRACTION, ENOUGH_JUDGED_ROWS / num_rows), most_judged_rows(tasks) / num_rows)
    judged = {name: min(share, most) for name, share in FRACTIONS.items() if name != "train"}
    # Exactly as they stand for all suites of ordinary size.
    return dict(FRACTIONS) if judged.items() <= FRACTIONS.items() else {"train": 1.0 - sum(judged.values()), **judged}


def resplit(suite: Suite, seed: int) -> Suite:
    """Return the suite with another division of its development rows (``train`` and ``val``); all other splits are untouched.

    Encoder state and the tasks' ``center`` and ``scale`` stay those of the first split: they are fixed constants, so that the
    models of all seeds have one interface. Shares of ``train`` and ``val`` stay what they were.

    Args:
        suite: A suite with splits.
        seed: 0 returns the suite as it is; other seeds give other divisions, equal ones equal divisions. A division by time stays
            what it is.
    """
    if seed == 0 or suite.raw.get(IN_ORDER):
        return suite
    development = np.sort(np.concatenate([suite.splits["train"], suite.splits["val"]]))
    share = len(suite.splits["train"]) / max(len(development), 1)
    targets = {task.name: np.asarray(suite.targets[task.name][development]) for task in suite.tasks}
    parts = split_rows(
        suite.tasks,
        targets,
        groups=_take(suite.groups, development),
        domain=_take(suite.domain, development),
        seed=Seeds(seed).integer("resplit"),
        # As shares of the development rows, in the proportions of the first split.
        fractions={"train": share, "val": 1.0 - share},
    )
    return suite.with_splits({**suite.splits, **{name: development[index] for name, index in parts.items()}})


def _take(array: Rows | None, rows: Rows) -> Rows | None:
    return None if array is None else np.asarray(array)[rows]


def _check_enough(number: int, num_parts: int, what: str, remedy: str) -> None:
    # Two parts need one row each; three need a few, to be of any use.
    least = MIN_UNITS if num_parts > 2 else num_parts
    if number < least:
        raise DataError(
            f"There are {number} {what}; at least {least} are needed for {num_parts} parts (train, val, test). {remedy}"
        )
