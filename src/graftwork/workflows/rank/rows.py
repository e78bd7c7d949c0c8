"""The rows that sources are judged on: a seeded sample of the training rows, with targets as scores read them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import Suite, labelled_rows
from graftwork.workflows.rank.row_view import picked_rows

__all__ = ["RankRows", "rank_rows", "scored_target", "training_sample"]

Array = NDArray[Any]
_CLASSES = ("binary", "multiclass", "ordinal")
_VALUES = ("regression", "multilabel")


@dataclass(frozen=True, slots=True)
class RankRows:
    """A suite of the judged rows alone, and what is scored. Large inputs are picked where they are read, not copied."""

    suite: Suite
    targets: dict[str, Array]
    """Of the tasks that scores can judge: classes int64 ``[N]`` or values float ``[N, K]``."""
    groups: Array | None
    notes: tuple[str, ...]


def rank_rows(suite: Suite, rows: int | None, *, seed: int = 0) -> RankRows:
    """Return the sampled rows.

    Args:
        suite: The user's data; validation and test rows are left alone.
        rows: Most rows to take; None takes all training rows.
        seed: Draws them.

    Raises:
        DataError: If no task can be judged, or there are fewer than ten rows with a label.
    """
    train = np.asarray(suite.splits["train"], dtype=np.int64)
    known = np.zeros(len(suite), dtype=np.bool_)
    for task in suite.tasks:
        known |= labelled_rows(np.asarray(suite.targets[task.name]))
    train = train[known[train]]
    if len(train) < 10:
        raise DataError(f"Sources cannot be ranked on {len(train)} labelled training rows; at least 10 are needed.")
    notes = []
    if rows is not None and rows < len(train):
        notes.append(f"Scores are of {rows:,} rows, drawn from {len(train):,} labelled training rows; --rows takes more.")
        train = np.sort(np.random.default_rng([seed, 7]).permutation(train)[:rows])
    targets, left_out = {}, []
    for task in suite.tasks:
        found = scored_target(task, picked_rows(suite.targets[task.name], train))
        if found is None:
            left_out.append(f"{task.name} ({task.kind_words})")
        else:
            targets[task.name] = found
    if left_out:
        notes.append(f"Not scored, because no score reads such targets: {', '.join(left_out)}.")
    if not targets:
        raise DataError(
            f"No task of the suite {suite.name!r} can be scored: {', '.join(left_out)}. Scores read classes, sets of labels and values, one "
            "answer a row."
        )
    return RankRows(_sliced(suite, train), targets, None if suite.groups is None else suite.groups[train], tuple(notes))


def training_sample(suite: Suite, rows: int | None, *, seed: int = 0) -> Suite:
    """Return a suite of a seeded sample of the training rows, labelled or not.

    Args:
        suite: The user's data; validation and test rows are left alone.
        rows: Most rows to take; None takes all training rows.
        seed: Draws them.

    Raises:
        DataError: If there are fewer than ten training rows.
    """
    train = np.asarray(suite.splits["train"], dtype=np.int64)
    if len(train) < 10:
        raise DataError(f"{suite.name!r} has {len(train)} training rows; at least 10 are needed.")
    return _sliced(suite, train if rows is None else np.sort(np.random.default_rng([seed, 7]).permutation(train)[:rows]))


def scored_target(task: TaskSpec, target: Array) -> Array | None:
    """Return a target as scores read it; None if they cannot."""
    if task.is_dense:
        return None
    if task.kind in _CLASSES:
        return np.asarray(target, dtype=np.int64)
    return np.asarray(target, dtype=np.float64) if task.kind in _VALUES else None


def _sliced(suite: Suite, rows: NDArray[np.int64]) -> Suite:
    raw: dict[str, Any] = {}
    if "text" in suite.raw:
        texts = suite.raw["text"]
        raw["text"] = [texts[row] for row in rows.tolist()]
    if "frame" in suite.raw:
        raw["frame"] = {name: np.asarray(column, dtype=object)[rows] for name, column in suite.raw["frame"].items()}
    return replace(
        suite,
        inputs={name: picked_rows(array, rows) for name, array in suite.inputs.items()},
        targets={name: picked_rows(array, rows) for name, array in suite.targets.items()},
        splits={"train": np.arange(len(rows)), "val": np.zeros(0, dtype=np.int64), "test": np.zeros(0, dtype=np.int64)},
        groups=None if suite.groups is None else suite.groups[rows],
        domain=None if suite.domain is None else suite.domain[rows],
        raw=raw,
    )
