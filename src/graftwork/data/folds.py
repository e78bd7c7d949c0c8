"""Folds: divisions of all rows in which every row is tested once (cross-validation), and divisions without test rows for the
models that are handed over.

Rows are dealt as :func:`graftwork.data.splits.split_rows` deals them: stratified over all tasks at once, groups whole, every
domain in every fold. Encoders and the tasks' ``center`` and ``scale`` stay those of the suite's first split, so that the models
of all folds have one interface.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["DRAWN", "can_fold", "fold_of_rows", "fold_suite", "fold_test_rows", "whole_suite"]

DRAWN = "drawn_splits"
"""Key of ``Suite.raw``: whether the splits were drawn at random here. Splits that somebody gave are kept."""
HELD_BACK = 0.1
"""Share of the rows on which a model that learns from all others stops, if there is one such model only."""
_DIVIDED = ("train", "val", "test")

Rows = NDArray[np.int64]


def can_fold(suite: Suite, folds: int) -> bool:
    """Return whether rows may be divided anew, and whether there are two labelled rows (or groups) for each fold."""
    if not suite.raw.get(DRAWN, False):
        return False
    rows = _rows(suite)
    units = rows[_labelled(suite, rows)]
    if suite.groups is not None:
        units = np.unique(suite.groups[units])
    return len(units) >= 2 * folds


def _rows(suite: Suite) -> Rows:
    return np.sort(np.concatenate([suite.splits[name] for name in _DIVIDED]))


def _labelled(suite: Suite, rows: Rows) -> NDArray[np.bool_]:
    known = np.zeros(len(rows), dtype=bool)
    for task in suite.tasks:
        known |= labelled_rows(np.asarray(suite.targets[task.name][rows]))
    return known


def _unlabelled(suite: Suite, rows: Rows) -> NDArray[np.bool_]:
    """Return which rows can be learned from in every division: those without any label, unless others of their group have one."""
    known = _labelled(suite, rows)
    if suite.groups is None:
        return ~known
    groups = suite.groups[rows]
    return ~np.isin(groups, groups[known])


@functools.lru_cache(maxsize=8)
def _dealt(suite: _ByIdentity, folds: int, seed: int) -> Rows:
    held = suite.held
    rows = _rows(held)
    parts = split_rows(
        held.tasks,
        {task.name: np.asarray(held.targets[task.name][rows]) for task in held.tasks},
        groups=None if held.groups is None else held.groups[rows],
        domain=None if held.domain is None else held.domain[rows],
        seed=Seeds(seed).integer("folds"),
        fractions={str(number): 1.0 / folds for number in range(folds)},
    )
    fold = np.full(len(held), -1, dtype=np.int64)
    for number in range(folds):
        fold[rows[parts[str(number)]]] = number
    fold[rows[_unlabelled(held, rows)]] = -1
    return fold


class _ByIdentity:
    """A suite as a key of a cache: suites are frozen, and too large to be compared."""

    def __init__(self, held: Suite) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.held is other.held


def fold_of_rows(suite: Suite, folds: int, seed: int) -> Rows:
    """Return the fold of each row, ``[N]``; -1 for rows that are in no fold: those of other splits, and those without labels (with
    groups: those of groups without a label).

    Args:
        suite: A suite whose splits were drawn here.
        folds: Number of folds, at least 3.
        seed: Equal seeds give equal folds.
    """
    return _dealt(_ByIdentity(suite), folds, seed)


def fold_suite(suite: Suite, folds: int, number: int) -> Suite:
    """Return the suite divided for one training of a repeated cross-validation.

    One fold is ``test``, the next one ``val``, all others are ``train``.

    Args:
        suite: A suite whose splits were drawn here.
        folds: Number of folds, at least 3.
        number: Counts trainings: the first ``folds`` of them test every row once, the next ones deal the rows anew.
    """
    repetition, fold = divmod(number, folds)
    of_row = fold_of_rows(suite, folds, repetition)
    rows = _rows(suite)
    test, val = of_row[rows] == fold, of_row[rows] == (fold + 1) % folds
    divided = {"train": rows[~(test | val)], "val": rows[val], "test": rows[test]}
    return suite.with_splits({**suite.splits, **divided})


def fold_test_rows(suite: Suite, folds: int, numbers: tuple[int, ...]) -> Rows:
    """Return the rows that some trainings of one repetition test, sorted.

    Args:
        suite: A suite whose splits were drawn here.
        folds: Number of folds.
        numbers: The trainings, as in :func:`fold_suite`.
    """
    return np.sort(np.concatenate([fold_suite(suite, folds, number).splits["test"] for number in numbers]))


def whole_suite(suite: Suite, parts: int, part: int, *, keep_all: bool = False) -> Suite:
    """Return the suite divided for a model that is handed over: no test rows.

    Args:
        suite: Any suite; rows of other splits stay where they are.
        parts: Number of models that are averaged. Each leaves out another part of the rows, on which its training stops; with one
            part, a tenth of the rows is left out. Rows without labels are left out by none: nothing can stop on them.
        part: Number of the model.
        keep_all: Whether the model learns from the rows that are left out, too: one that is fitted in one go stops on nothing.
    """
    rows = _rows(suite)
    fractions = {"train": 1.0 - HELD_BACK, "val": HELD_BACK} if parts == 1 else {str(one): 1.0 / parts for one in range(parts)}
    dealt = split_rows(
        suite.tasks,
        {task.name: np.asarray(suite.targets[task.name][rows]) for task in suite.tasks},
        groups=None if suite.groups is None else suite.groups[rows],
        domain=None if suite.domain is None else suite.domain[rows],
        seed=Seeds(0).integer("whole"),
        fractions=fractions,
    )
    val = rows[dealt["val" if parts == 1 else str(part)]]
    left_out = np.isin(rows, val) & ~_unlabelled(suite, rows)
    train = rows if keep_all else rows[~left_out]
    return suite.with_splits({**suite.splits, "train": train, "val": rows[left_out], "test": rows[:0]})
