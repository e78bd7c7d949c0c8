"""Metrics of all task kinds, in NumPy: which exist, which is the default, which direction is good, and how a prediction scores.

Predictions are in the user's units as :meth:`graftwork.interfaces.learner.Learner.predict` returns them. Rows or entries without a
label do not count. A metric that the data leave undefined (one class only for the ROC area, say) is NaN, never an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskSpec
from graftwork.data.suite import labelled_rows
from graftwork.evaluation import metrics_dense, metrics_labels, metrics_ranking, metrics_values
from graftwork.evaluation.metric_types import Array, Evaluator, Metric

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

_INF = float("inf")

# The order within a kind is the order of report columns.
_ALL = (
    Metric("roc_auc", "ROC AUC", True, ("binary",), 0.0, 1.0, metrics_ranking.roc_auc),
    Metric("average_precision", "average precision", True, ("binary",), 0.0, 1.0, metrics_ranking.average_precision),
    Metric(
        "mean_average_precision",
        "mean average precision",
        True,
        ("multilabel",),
        0.0,
        1.0,
        metrics_ranking.mean_average_precision,
    ),
    Metric("quadratic_kappa", "quadratic kappa", True, ("ordinal",), -1.0, 1.0, metrics_labels.quadratic_kappa),
    Metric("accuracy", "accuracy", True, ("binary", "multiclass", "ordinal"), 0.0, 1.0, metrics_labels.accuracy),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        True,
        ("binary", "multiclass", "ordinal"),
        0.0,
        1.0,
        metrics_labels.balanced_accuracy,
    ),
    Metric("f1_macro", "macro F1", True, ("binary", "multiclass", "ordinal", "multilabel"), 0.0, 1.0, metrics_labels.f1_macro),
    Metric("class_distance", "mean class distance", False, ("ordinal",), 0.0, _INF, metrics_labels.class_distance),
    Metric("log_loss", "log loss", False, ("binary", "multiclass", "ordinal", "multilabel"), 0.0, _INF, metrics_labels.log_loss),
    Metric("rmse", "RMSE", False, ("regression", "dense_regression", "dense_offsets"), 0.0, _INF, metrics_values.rmse),
    Metric("mae", "MAE", False, ("regression", "dense_regression", "dense_offsets"), 0.0, _INF, metrics_values.mae),
    Metric("r2", "R²", True, ("regression",), -_INF, 1.0, metrics_values.r2),
    Metric("ods_f1", "F1 at the best threshold", True, ("dense_binary",), 0.0, 1.0, metrics_dense.ods_f1),
    Metric("f1", "F1", True, ("dense_binary",), 0.0, 1.0, metrics_dense.f1),
    Metric("miou", "mean IoU", True, ("dense_multiclass", "dense_binary"), 0.0, 1.0, metrics_dense.miou),
    Metric(
        "pixel_accuracy", "pixel accuracy", True, ("dense_multiclass", "dense_binary"), 0.0, 1.0, metrics_dense.pixel_accuracy
    ),
    Metric("mean_angle", "mean angle (degrees)", False, ("dense_normals",), 0.0, 180.0, metrics_dense.mean_angle),
    Metric("within_11", "within 11.25 degrees", True, ("dense_normals",), 0.0, 1.0, metrics_dense.within_11),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""All metrics by name."""

_DEFAULTS = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "ordinal": "quadratic_kappa",
    "multilabel": "mean_average_precision",
    "regression": "rmse",
    "dense_binary": "ods_f1",
    "dense_multiclass": "miou",
    "dense_regression": "mae",
    "dense_normals": "mean_angle",
    "dense_offsets": "mae",
}


def find_metric(name: str) -> Metric:
    """Return the metric called ``name``.

    Raises:
        ConfigError: If there is none; the message holds the nearest name.
    """
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"There is no metric {name!r}.{hint} The metrics are {', '.join(METRICS)}.")


def higher_is_better(metric: str) -> bool:
    """Return whether larger values of the metric are better.

    Raises:
        ConfigError: If there is no such metric.
    """
    return find_metric(metric).higher_is_better


def metrics_of(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names of all metrics that can judge the task, the primary one first."""
    first = default_metric(spec)
    return (first, *(metric.name for metric in _ALL if spec.kind in metric.kinds and metric.name != first))


def default_metric(spec: TaskSpec) -> str:
    """Return the task's primary metric: the one it names, or the default of its kind.

    Raises:
        ConfigError: If the task names a metric that does not exist or cannot judge its kind.

    Example:
        >>> default_metric(TaskSpec(name="age", kind="regression", size=1))
        'rmse'
    """
    if not spec.metric:
        return _DEFAULTS[spec.kind]
    problem = metric_problem(spec.name, spec.metric, spec.kind)
    if problem:
        raise ConfigError(problem)
    return spec.metric


def metric_problem(task: str, metric: str, kind: str = "") -> str:
    """Return what is wrong with the metric that a user named for a task, empty if nothing; without ``kind`` only the name is checked."""
    try:
        found = find_metric(metric)
    except ConfigError as error:
        return f"Task {task!r}: {error}"
    if kind and kind not in found.kinds:
        allowed = ", ".join(item.name for item in _ALL if kind in item.kinds)
        return f"Task {task!r}: the metric {metric!r} cannot judge a {kind} task. Choose one of: {allowed}."
    return ""


def check_metrics(tasks: Sequence[TaskSpec]) -> None:
    """Look at the metrics that tasks name, before anything is trained.

    Raises:
        ConfigError: With all problems at once.
    """
    problems = [metric_problem(task.name, task.metric, task.kind) for task in tasks if task.metric]
    if any(problems):
        raise ConfigError("Some tasks cannot be judged as asked.", [problem for problem in problems if problem])


def _check_shapes(spec: TaskSpec, target: Array, prediction: Array) -> None:
    expected: tuple[int, ...]
    rows = len(target)
    if spec.kind == "binary":
        expected = (rows,)
    elif spec.kind == "dense_binary":
        expected = (rows, 1, *target.shape[1:])
    elif spec.kind == "dense_multiclass":
        expected = target.shape if prediction.ndim == 3 else (rows, spec.size, *target.shape[1:])
    elif spec.is_dense:
        expected = target.shape
    else:
        expected = (rows, spec.size)
    if prediction.shape != expected:
        raise DataError(
            f"Task {spec.name!r} ({spec.kind}): the prediction must have shape {list(expected)}; got {list(prediction.shape)}."
        )


def prepare_metric(spec: TaskSpec, target: Array, prediction: Array, metric: str = "") -> Evaluator:
    """Return the function from row weights ``[B, N]`` to metric values ``[B]``.

    Args:
        spec: The task.
        target: Truth, laid out as :class:`~graftwork.core.records.TaskSpec` says, ``N`` rows.
        prediction: In the user's units, ``N`` rows; dense classes as probabilities ``[N, size, H, W]`` or decided ``[N, H, W]``;
            dense binary tasks as probabilities of class 1, ``[N, 1, H, W]`` or ``[N, H, W]``.
        metric: Name; empty takes the task's primary metric.

    Raises:
        DataError: If the shapes do not fit.
        ConfigError: If there is no such metric.
    """
    chosen = find_metric(metric or default_metric(spec))
    target, prediction = np.asarray(target), np.asarray(prediction)
    if spec.kind == "binary" and prediction.ndim == 2 and prediction.shape[1] == 1:
        prediction = prediction[:, 0]
    if spec.kind == "dense_binary" and prediction.ndim == 3:
        prediction = prediction[:, None]
    if spec.kind == "regression":
        target, prediction = target.reshape(len(target), -1), prediction.reshape(len(prediction), -1)
    _check_shapes(spec, target, prediction)
    known = labelled_rows(target)
    if not np.isfinite(prediction[known]).all():
        return lambda weights: np.full(len(weights), np.nan)  # a diverged model has no score
    return chosen.prepare(spec, target, np.where(np.isfinite(prediction), prediction, 0))


def score_task(spec: TaskSpec, target: Array, prediction: Array, metrics: Sequence[str] | None = None) -> dict[str, float]:
    """Return ``{metric: value}``, the primary metric first.

    Args:
        spec: The task.
        target: Truth of ``N`` rows.
        prediction: Prediction for the same rows.
        metrics: Names; None takes all that can judge the task.

    Raises:
        DataError: If the shapes do not fit.
        ConfigError: If there is no such metric.

    Example:
        >>> task = TaskSpec(name="late", kind="binary", size=1)
        >>> score_task(task, np.array([0, 1, 1, -1]), np.array([0.2, 0.9, 0.4, 0.5]), ["accuracy"])["accuracy"] == 2 / 3
        True
    """
    once = np.ones((1, len(target)))
    return {name: float(prepare_metric(spec, target, prediction, name)(once)[0]) for name in metrics or metrics_of(spec)}
