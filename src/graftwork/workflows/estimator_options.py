"""What a caller of the estimator says of single columns of ``y``: weights of classes, metrics, weights of columns; and which rows stay
together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.evaluation.metrics import check_metrics, default_metric, higher_is_better, score_task
from graftwork.interfaces.task_kind import task_kind
from graftwork.tasks.class_weights import ASKED, WEIGHTS
from graftwork.workflows.estimator_targets import TargetColumn, label_keys

__all__ = ["by_column", "class_weighted", "column_score", "column_weights", "group_numbers", "held_rows", "with_metrics"]

Array = NDArray[Any]
LEAST_ROWS = 20
"""Below so many rows a validation part says nothing, and costs training rows."""


def by_column(value: Any, names: Sequence[str], what: str, one: Callable[[Any], bool]) -> list[Any]:
    """Return what is said of each column; None where nothing is.

    Args:
        value: One value for all columns, a list with one for each, or a mapping from names of columns.
        names: Names of the columns.
        what: Name of the parameter, for messages.
        one: Whether a value stands for all columns.

    Raises:
        ConfigError: If a list has another length, or a mapping names no column.
    """
    if value is None or one(value):
        return [value] * len(names)
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in names]
        if unknown:
            raise ConfigError(f"`{what}` names {unknown[0]!r}, which is no column of `y`; the columns are {', '.join(names)}.")
        return [value.get(name) for name in names]
    if isinstance(value, str) or not isinstance(value, list | tuple | np.ndarray) or len(value) != len(names):
        raise ConfigError(
            f"`{what}` is one value, a list with one for each column of `y` ({len(names)}), or a mapping; got {value!r}."
        )
    return list(value)


def class_weighted(
    tasks: Sequence[TaskSpec], asked: Any, levels: Mapping[str, Array], targets: Mapping[str, Array], rows: NDArray[np.int64]
) -> list[TaskSpec]:
    """Return the tasks with the weights of classes that are asked for.

    Args:
        tasks: One a column.
        asked: ``"balanced"`` (of all columns with classes), ``{label: weight}`` for the only such column, or one of these (or
            None) for each column, as a list or ``{column: ...}``.
        levels: ``{task: labels by class number}``.
        targets: Class numbers of all rows.
        rows: Training rows.

    Raises:
        ConfigError: If a weight is for no class, or not a number of at least 0.
    """
    names = [task.name for task in tasks]
    if isinstance(asked, Mapping) and len(levels) == 1 and not set(asked) & set(names):
        asked = {next(iter(levels)): asked}
    found = []
    for task, one in zip(tasks, by_column(asked, names, "class_weight", lambda value: value == "balanced"), strict=True):
        if one is None or task.name not in levels:
            if isinstance(one, Mapping):
                raise ConfigError(f"`class_weight` of column {task.name!r} cannot be used: it holds numbers, not classes.")
            found.append(task)
        elif isinstance(one, Mapping):
            found.append(_weighed(task, one, levels[task.name], targets[task.name][rows]))
        else:
            found.append(task_kind(task).class_weighted(task, str(one), targets[task.name][rows]))
    return found


def _weighed(task: TaskSpec, asked: Mapping[Any, Any], levels: Array, target: Array) -> TaskSpec:
    keys = label_keys(np.asarray(levels, dtype=object))
    given = dict(zip(label_keys(np.array([*asked, None], dtype=object)), asked.values(), strict=False))
    unknown = [label for key, label in zip(given, asked, strict=True) if key not in keys]
    if unknown:
        raise ConfigError(
            f"`class_weight` of column {task.name!r} has a weight for {unknown[0]!r}; its classes are {', '.join(keys)}."
        )
    wrong = [value for value in given.values() if not _is_number(value) or not 0 <= value < float("inf")]
    if wrong:
        raise ConfigError(f"`class_weight` of column {task.name!r} must hold numbers of at least 0; got {wrong[0]!r}.")
    weights = np.array([given.get(key, 1.0) for key in keys] + [1.0] * (max(2, task.size) - len(keys)), dtype=np.float64)
    mean = float(weights[target[target >= 0]].mean()) if (target >= 0).any() else 1.0
    if mean <= 0:
        raise ConfigError(f"`class_weight` of column {task.name!r} gives all its training rows the weight 0.")
    # A mean of 1 over rows, so that the loss keeps its size beside those of other columns.
    return replace(task, details={**task.details, ASKED: "given", WEIGHTS: (weights / mean).tolist()})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def with_metrics(tasks: Sequence[TaskSpec], metric: Any) -> list[TaskSpec]:
    """Return the tasks with the metrics that are asked for: a name for all columns, a list, or ``{column: name}``.

    Raises:
        ConfigError: If a metric cannot judge its column.
    """
    names = by_column(metric, [task.name for task in tasks], "metric", lambda value: isinstance(value, str))
    found = [task if name is None else replace(task, metric=str(name)) for task, name in zip(tasks, names, strict=True)]
    check_metrics(found)
    return found


def column_weights(weights: Any, names: Sequence[str]) -> list[float]:
    """Return the weight of each column in means over columns; 1 where none is given.

    Raises:
        ConfigError: If one is not above 0.
    """
    found = [1.0 if one is None else one for one in by_column(weights, names, "weights", lambda _: False)]
    wrong = [one for one in found if not _is_number(one) or not 0 < one < float("inf")]
    if wrong:
        raise ConfigError(f"`weights` must be numbers above 0; got {wrong[0]!r}.")
    return [float(one) for one in found]


def column_score(task: TaskSpec, column: TargetColumn, answers: Array, levels: Array | None) -> float:
    """Return the metric that a column names; of those that are better when lower, the negative.

    Args:
        task: The column's task.
        column: The truth, with a label at least.
        answers: Numbers ``[N, 1]``, or probabilities as learners lay them out.
        levels: Labels by class number; None for numbers.

    Raises:
        ValueError: If a label is none of the classes.
    """
    known = column.known
    if levels is None:
        truth: Array = column.numbers()[known][:, None]
    else:
        number = {key: index for index, key in enumerate(label_keys(np.asarray(levels, dtype=object)))}
        keys = label_keys(column.cells[known])
        unknown = [key for key in keys if key not in number]
        if unknown:
            raise ValueError(f"Column {column.name!r} of `y` holds {unknown[0]!r}, which is none of the classes seen in `fit`.")
        truth = np.array([number[key] for key in keys], dtype=np.int64)
    metric = default_metric(task)
    value = score_task(task, truth, answers[known], [metric])[metric]
    return float(value if higher_is_better(metric) else -value)


def group_numbers(groups: Any, rows: int) -> NDArray[np.int64] | None:
    """Return the number of each row's group, ``[N]``; None without groups.

    Raises:
        ValueError: If there is not one for each row.
    """
    if groups is None:
        return None
    found = np.asarray(groups)
    if found.shape != (rows,):
        raise ValueError(f"`groups` must have one entry for each of the {rows} rows; got shape {list(found.shape)}.")
    keys = found.astype(str) if found.dtype == object else found
    return np.asarray(np.unique(keys, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def held_rows(rows: int, share: float, groups: NDArray[np.int64] | None, seed: int) -> NDArray[np.bool_]:
    """Return which rows validate, ``[N]``: about a share of them, rows of one group on one side; none of few rows or one group."""
    draw, held = Seeds(seed).numpy("validation"), np.zeros(rows, dtype=np.bool_)
    if rows < LEAST_ROWS:
        return held
    if groups is None:
        held[draw.permutation(rows)[: int(share * rows)]] = True
        return held
    counts = np.bincount(groups)
    order = draw.permutation(len(counts))
    # Whole groups while they fit; the last one is never taken, so that something is left to learn from.
    taken = order[np.cumsum(counts[order]) <= share * rows][: len(counts) - 1]
    return np.isin(groups, taken) if len(taken) else np.isin(groups, order[:1]) & (len(counts) > 1) & (share > 0)
