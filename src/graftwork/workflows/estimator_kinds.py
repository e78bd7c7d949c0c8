"""Which tasks the columns of ``y`` are: the kinds that ``fit`` infers, with the classes kept as they were given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.reading.infer import InferredTask, TargetRequest, infer_tasks
from graftwork.data.reading.target_arrays import number_target, origin_of
from graftwork.workflows.estimator_targets import TargetColumn, narrowed

__all__ = ["KINDS", "LearnedTarget", "learned_targets"]

Array = NDArray[Any]
KINDS = ("auto", "regression", "classes")
"""What a caller may say of a column."""

_CLASS_KINDS = ("binary", "multiclass", "ordinal")


@dataclass(frozen=True, slots=True)
class LearnedTarget:
    """One task of the estimator."""

    spec: TaskSpec
    target: Array
    """Laid out as :class:`~graftwork.core.records.TaskSpec` says."""
    levels: Array | None
    """The classes as they were given, by class number; None for a regression."""
    reason: str
    """Why it is of this kind, in words."""


def learned_targets(columns: Sequence[TargetColumn], kinds: Any) -> list[LearnedTarget]:
    """Decide the tasks.

    Args:
        columns: The columns of ``y``, each with a label at least.
        kinds: One of :data:`KINDS`, or one for each column.

    Returns:
        A task for each column. ``"auto"`` decides as ``graftwork.fit`` does, for all columns together; sets of labels in one
        cell are taken as classes, and a column with one value only is learned as it is.

    Raises:
        ConfigError: If ``kinds`` does not fit.
        DataError: If a column can be no target: dates, numbers mixed with words, names that are nearly all different.
    """
    asked = [kinds] * len(columns) if isinstance(kinds, str) else list(kinds)
    if len(asked) != len(columns) or any(kind not in KINDS for kind in asked):
        raise ConfigError(f"`kinds` is 'auto', or one of 'regression' and 'classes' per column ({len(columns)}); got {kinds!r}.")
    pandas = require("pandas", extra="data", purpose="The estimator")
    open_ones = [
        column
        for column, kind in zip(columns, asked, strict=True)
        if kind == "auto" and _varies(narrowed(column.cells[column.known]))
    ]
    # Together: columns of one quantity are of one kind.
    frame = pandas.DataFrame({column.name: column.series for column in open_ones})
    requests = [TargetRequest(column.name, (column.name,)) for column in open_ones]
    try:
        inferred = {task.spec.name: task for task in infer_tasks(frame, requests)} if requests else {}
    except DataError as error:
        raise DataError(f"{error} (Of this estimator, `kinds` takes the place of --task-kind.)") from error
    found = []
    for column, kind in zip(columns, asked, strict=True):
        task = inferred.get(column.name)
        if task is not None and task.spec.kind == "regression":
            found.append(LearnedTarget(task.spec, task.target, None, task.reason))
        elif task is not None and task.spec.kind in _CLASS_KINDS:
            found.append(_named_classes(column, task))
        elif kind == "regression" or (kind == "auto" and task is None and column.has_fractions):
            found.append(_regression(column, "as asked" if kind == "regression" else "one value"))
        else:
            found.append(_classes(column, task.reason if task is not None else "as asked" if kind != "auto" else "one value"))
    return found


def _varies(labels: Array) -> bool:
    return bool((labels != labels[0]).any())


def _named_classes(column: TargetColumn, task: InferredTask) -> LearnedTarget:
    """Return an inferred task of classes: each class is shown as the first of its cells."""
    number = max(2, len(task.spec.classes))
    codes, first = np.unique(task.target, return_index=True)
    rows = first[codes >= 0]
    if len(rows) < number:  # a class without rows cannot be shown: only those that occur are learned
        return _classes(column, task.reason)
    return LearnedTarget(task.spec, task.target, narrowed(column.cells[rows]), task.reason)


def _regression(column: TargetColumn, reason: str) -> LearnedTarget:
    """Return a regression of one value.

    Raises:
        ValueError: If labels are no numbers.
    """
    values = column.numbers()[:, None]
    lost = column.known & np.isnan(values[:, 0])
    if lost.any():
        raise ValueError(
            f"Column {column.name!r} of `y` is to be a regression, but {int(lost.sum())} of its labels are no numbers, such as "
            f"{column.cells[lost][0]!r}. Make them numbers, or choose 'classes'."
        )
    origin = origin_of(values)
    spec = TaskSpec(name=column.name, kind="regression", size=1, details={"origin": list(origin)} if origin else {})
    return LearnedTarget(spec, number_target(column.name, values - np.asarray(origin or 0.0)), None, reason)


def _classes(column: TargetColumn, reason: str) -> LearnedTarget:
    """Return a task whose classes are the different labels, sorted.

    Raises:
        ValueError: If labels cannot be put in order, such as numbers and strings.
    """
    try:
        levels, codes = np.unique(narrowed(column.cells[column.known]), return_inverse=True)
    except TypeError:
        raise ValueError(f"Column {column.name!r} of `y` mixes numbers and strings. Write its labels in one type.") from None
    target = np.full(len(column.cells), -1, dtype=np.int64)
    target[column.known] = codes
    is_binary = len(levels) <= 2
    spec = TaskSpec(name=column.name, kind="binary" if is_binary else "multiclass", size=1 if is_binary else len(levels))
    return LearnedTarget(spec, target, levels, reason)
