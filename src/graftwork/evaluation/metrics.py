"""Metrics of all task kinds, in NumPy: which exist, which is the default, which direction is good, and how a prediction scores.

Predictions are in the user's units as :meth:`graftwork.interfaces.learner.Learner.predict` returns them. Rows or entries without
a label do not count. A metric that the data leave undefined (one class only for the ROC area, say) is NaN, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.kinds import all_kinds, find_kind
from graftwork.core.nearest import did_you_mean
from graftwork.core.records import TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.interfaces.metric import Array, Evaluator, Floats, Metric
from graftwork.interfaces.task_kind import TaskKind, task_kind
from graftwork.math.weighted_sums import divide

__all__ = [
    "METRICS",
    "check_metrics",
    "default_metric",
    "find_metric",
    "higher_is_better",
    "metric_problem",
    "metrics_of",
    "prepare_metric",
    "score_task",
]


class _Metrics(Mapping[str, Metric]):
    """All metrics by name, of all kinds that exist when it is asked."""

    def _by_name(self) -> dict[str, Metric]:
        return {metric.name: metric for kind in cast(Sequence[TaskKind], all_kinds()) for metric in kind.metrics}

    def __getitem__(self, name: str) -> Metric:
        return self._by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())


METRICS: Mapping[str, Metric] = _Metrics()
"""All metrics by name: those that task kinds list."""


def find_metric(name: str) -> Metric:
    """Return the metric called ``name``.

    Raises:
        ConfigError: If there is none; the message holds the nearest name.
    """
    if name in METRICS:
        return METRICS[name]
    raise ConfigError(f"There is no metric {name!r}.{did_you_mean(name, METRICS)} The metrics are {', '.join(METRICS)}.")


def higher_is_better(metric: str) -> bool:
    """Return whether larger values of the metric are better.

    Raises:
        ConfigError: If there is no such metric.
    """
    return find_metric(metric).higher_is_better


def metrics_of(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names of all metrics that can judge the task, the primary one first."""
    first = default_metric(spec)
    return (first, *(metric.name for metric in task_kind(spec).metrics if metric.name != first))


def default_metric(spec: TaskSpec) -> str:
    """Return the task's primary metric: the one it names, or the default of its kind.

    Raises:
        ConfigError: If the task names a metric that does not exist or cannot judge its kind.

    Example:
        >>> default_metric(TaskSpec(name="age", kind="regression", size=1))
        'rmse'
    """
    if not spec.metric:
        return task_kind(spec).metrics[0].name
    problem = metric_problem(spec.name, spec.metric, spec.kind, spec.positions)
    if problem:
        raise ConfigError(problem)
    return spec.metric


def metric_problem(task: str, metric: str, kind: str = "", positions: str = "") -> str:
    """Return what is wrong with the metric that a user named for a task, empty if nothing; without ``kind`` only the name is
    checked."""
    try:
        found = find_metric(metric)
    except ConfigError as error:
        return f"Task {task!r}: {error}"
    if not kind:
        return ""
    allowed = [item.name for item in cast(TaskKind, find_kind(kind, positions)).metrics]
    if found.name in allowed:
        return ""
    what = f"{kind} task over {positions}" if positions else f"{kind} task"
    return f"Task {task!r}: the metric {metric!r} cannot judge a {what}. Choose one of: {', '.join(allowed)}."


def check_metrics(tasks: Sequence[TaskSpec]) -> None:
    """Look at the metrics that tasks name, before anything is trained.

    Raises:
        ConfigError: With all problems at once.
    """
    problems = [metric_problem(task.name, task.metric, task.kind, task.positions) for task in tasks if task.metric]
    if any(problems):
        raise ConfigError("Some tasks cannot be judged as asked.", [problem for problem in problems if problem])


def prepare_metric(
    spec: TaskSpec, target: Array, prediction: Array, metric: str = "", *, parts: NDArray[np.integer[Any]] | None = None
) -> Evaluator:
    """Return the function from row weights ``[B, N]`` to metric values ``[B]``.

    Args:
        spec: The task.
        target: Truth, laid out as :class:`~graftwork.core.records.TaskSpec` says, ``N`` rows.
        prediction: In the user's units, ``N`` rows; classes over positions as probabilities ``[N, size, P]`` or decided ``[N,
            P]``; binary tasks over positions as probabilities of class 1, ``[N, 1, P]`` or ``[N, P]``.
        metric: Name; empty takes the task's primary metric.
        parts: Which model answered each row, ``[N]``; None if one answered all. Metrics of the order of rows are then means over the
            models, each weighing as its rows do: a model that answers one number for all rows orders none of them, whatever
            number it is.

    Raises:
        DataError: If the shapes do not fit.
        ConfigError: If there is no such metric.
    """
    chosen = find_metric(metric or default_metric(spec))
    target, prediction = np.asarray(target), np.asarray(prediction)
    # Kinds accept several shapes ([N] or [N, 1], say); from here on there is one.
    target, prediction = task_kind(spec).scored(spec, target, prediction)
    known = labelled_rows(target)
    if not np.isfinite(prediction[known]).all():
        return lambda weights: np.full(len(weights), np.nan)  # a diverged model has no score
    # Rows without a label may hold anything; NaN times weight 0 would still be NaN.
    prediction = np.where(np.isfinite(prediction), prediction, 0)
    if parts is None or not chosen.of_order:
        return chosen.prepare(spec, target, prediction)
    of_models = [np.flatnonzero(parts == part) for part in np.unique(parts)]
    return _mean_over_models([(rows, chosen.prepare(spec, target[rows], prediction[rows])) for rows in of_models], known)


def _mean_over_models(models: Sequence[tuple[NDArray[np.intp], Evaluator]], known: NDArray[np.bool_]) -> Evaluator:
    def evaluate(weights: Floats) -> Floats:
        values = np.stack([one(weights[:, rows]) for rows, one in models], axis=1)
        sizes = np.stack([weights[:, rows] @ known[rows] for rows, _ in models], axis=1)
        # A model whose rows leave the metric undefined (one class only, say) says nothing.
        sizes = np.where(np.isfinite(values), sizes, 0.0)
        return divide((np.where(sizes > 0, values, 0.0) * sizes).sum(axis=1), sizes.sum(axis=1))

    return evaluate


def score_task(
    spec: TaskSpec,
    target: Array,
    prediction: Array,
    metrics: Sequence[str] | None = None,
    *,
    weights: Array | None = None,
) -> dict[str, float]:
    """Return ``{metric: value}``, the primary metric first.

    Args:
        spec: The task.
        target: Truth of ``N`` rows.
        prediction: Prediction for the same rows.
        metrics: Names; None takes all that can judge the task.
        weights: Weight of each row, ``[N]``, at least 0; None weighs all alike. In metrics over pairs a pair weighs the product.

    Raises:
        DataError: If the shapes do not fit.
        ConfigError: If there is no such metric.

    Example:
        >>> task = TaskSpec(name="late", kind="binary", size=1)
        >>> score_task(task, np.array([0, 1, 1, -1]), np.array([0.2, 0.9, 0.4, 0.5]), ["accuracy"])["accuracy"] == 2 / 3
        True
    """
    once = np.ones((1, len(target))) if weights is None else np.asarray(weights, dtype=np.float64)[None]
    if once.shape != (1, len(target)):
        raise DataError(f"Task {spec.name!r}: there are {once.shape[1:]} weights for {len(target)} rows; give one per row.")
    return {name: float(prepare_metric(spec, target, prediction, name)(once)[0]) for name in metrics or metrics_of(spec)}
