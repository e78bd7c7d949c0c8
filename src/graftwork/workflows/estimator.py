"""One plan as a scikit-learn estimator: several targets in one ``y``, numbers and classes mixed.

The whole race is ``graftwork.fit``; this trains a single plan of the portfolio on arrays, for pipelines, searches and
cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.scratch import scratch_folder
from graftwork.data.suite import Suite
from graftwork.evaluation.threshold_choice import kept_thresholds
from graftwork.interfaces.learner import LearnerContext
from graftwork.tasks.decode import decode_output
from graftwork.tasks.thresholds import chosen_class, says_yes, with_thresholds
from graftwork.tasks.values import with_origin
from graftwork.training.devices import chosen_device, chosen_precision, on_cpu
from graftwork.training.stages import learner_of
from graftwork.workflows.estimator_kinds import LearnedTarget, learned_targets
from graftwork.workflows.estimator_options import (
    class_weighted,
    column_score,
    column_weights,
    group_numbers,
    held_rows,
    with_metrics,
)
from graftwork.workflows.estimator_targets import label_keys, target_columns
from graftwork.workflows.portfolio import portfolio

__all__ = ["MultiTaskEstimator"]

Array = NDArray[Any]


class MultiTaskEstimator(BaseEstimator):
    """Learns all columns of ``y`` together.

    Args:
        plan: Name of a neural plan for tables (``graftwork fit --help`` lists them), such as ``"shared-trunk"``, ``"separate"``
            or ``"mmoe"``.
        max_steps: Optimiser steps.
        kinds: ``"auto"``, or one of ``"auto"``, ``"regression"`` and ``"classes"`` per column. ``"auto"`` decides as
            :func:`graftwork.fit` does, for all columns together: words, true and false, and whole numbers in a row from 0 or 1
            are classes, words of a known scale are ordered classes, other numbers are regressions.
        validation_fraction: Share of the rows that chooses the best weights, in [0, 1); 0 keeps the last.
        class_weight: How much rows of each class weigh in the loss: ``"balanced"`` (classes weigh the same together, in all columns
            with classes), ``{label: weight}`` if one column has classes, or one of these or None for each column, as a list or
            ``{column: ...}``. Labels without a weight weigh 1. None weighs all alike.
        metric: By what :meth:`score` judges: the name of a metric for all columns, a list with one (or None) for each, or
            ``{column: name}``. Metrics of decisions (``"f1_macro"``, ``"balanced_accuracy"``, ``"accuracy"`` of two classes) also
            choose thresholds on the validation rows, where they clearly help there. None is R squared and accuracy.
        weights: Weights of columns in the mean of :meth:`score`, above 0: a list, or ``{column: weight}``; columns without one
            weigh 1. They do not change training.
        training: Settings of :class:`graftwork.training.config.TrainConfig`, such as ``{"learning_rate": 1e-3}``.
        device: Where it is trained: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``, which takes an accelerator where there is one. The
            fitted model is on the CPU.
        precision: Of the forward passes in training: ``"fp32"``, ``"bf16"`` or ``"auto"``, as for :func:`graftwork.fit`.
        random_state: Seed; an integer repeats bit for bit on a CPU with the same number of threads (``torch.set_num_threads``).

    Attributes:
        tasks_: The tasks as :class:`~graftwork.core.records.TaskSpec`, one per column; named as the columns of a DataFrame, else
            ``y0``, ``y1`` ...
        reasons_: ``{task: why it is of this kind}``.
        classes_: Classes of each column (None for a regression); of the only column if ``y`` has one dimension.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Their names, if ``X`` was a DataFrame whose names are texts.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 5))
        >>> y = np.column_stack([X[:, 0] * 2.5, X[:, 0] > 0])
        >>> estimator = MultiTaskEstimator(max_steps=60, kinds=["regression", "classes"], random_state=0).fit(X, y)
        >>> estimator.predict(X).shape
        (200, 2)
    """

    def __init__(
        self,
        *,
        plan: str = "shared-trunk",
        max_steps: int = 500,
        kinds: Any = "auto",
        class_weight: Any = None,
        metric: Any = None,
        weights: Any = None,
        validation_fraction: float = 0.1,
        training: Mapping[str, Any] | None = None,
        device: str = "auto",
        precision: str = "auto",
        random_state: Any = None,
    ) -> None:
        self.plan = plan
        self.max_steps = max_steps
        self.kinds = kinds
        self.class_weight = class_weight
        self.metric = metric
        self.weights = weights
        self.validation_fraction = validation_fraction
        self.training = training
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.two_d_labels = True
        return tags

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:
        """Train.

        Args:
            X: Numbers, ``[N, F]``.
            y: One target ``[N]`` or several ``[N, T]``, an array or a DataFrame with columns of any types. Labels that are
                missing (NaN, None, ``pandas.NA``, empty texts) are left out, column by column.
            groups: Group of each row (patient, site), ``[N]``: rows of one group are not divided between training and validation.

        Raises:
            ValueError: If shapes do not fit, values of ``X`` are missing or infinite, a column of ``y`` has no label or can be no
                target, the plan does not exist, or what is said of columns does not fit them.
        """
        device = chosen_device(self.device)
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        columns, self._is_single = target_columns(y, len(X))
        targets = learned_targets(columns, self.kinds)
        self._levels = {one.spec.name: one.levels for one in targets if one.levels is not None}
        # A generator that was handed in moves on: two fits in a row then differ, as in scikit-learn.
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._center = X.mean(axis=0)
        scale = X.std(axis=0)
        # Constant columns: 0 / 1 in place of a division by zero.
        self._scale = np.where(scale > 1e-12, scale, 1.0)
        suite = self._suite(X, targets, seed, group_numbers(groups, len(X)))
        column_weights(self.weights, suite.task_names)  # refused before anything is trained
        self.tasks_ = suite.tasks
        self.reasons_ = {one.spec.name: one.reason for one in targets}
        classes = [self._levels.get(task.name) for task in suite.tasks]
        self.classes_ = classes[0] if self._is_single else classes
        # a single target is fine here: sharing and balancing of one task is plain training
        plan = next(plan for plan in portfolio(["table"], max(2, len(suite.tasks)), names=[self.plan]) if plan.name == self.plan)
        if not plan.train.learner.path.endswith(":NeuralLearner"):
            raise ConfigError(
                f"`plan` must be a neural plan for an estimator; {self.plan!r} is not. Use scikit-learn's own for trees."
            )
        with scratch_folder("cache") as cache:
            learner: Any = learner_of(
                LearnerContext(
                    suite=suite,
                    plan=plan,
                    seed=seed,
                    max_steps=self.max_steps,
                    cache=cache,
                    threads=torch.get_num_threads(),
                    overrides=dict(self.training or {}),
                    device=device,
                    precision=chosen_precision(self.precision, device),
                )
            )
            learner.train(self.max_steps)
        # On the CPU: there it is pickled, copied and asked by whoever holds it.
        self.model_ = on_cpu(learner.best_model)
        self.tasks_ = _decided(suite, learner) if self.metric is not None and len(suite.splits["val"]) else suite.tasks
        return self

    def predict(self, X: Any) -> Array:
        """Return predictions shaped like ``y``: classes as they were given, numbers in their units."""
        raw = self._outputs(X)
        columns = []
        for task in self.tasks_:
            levels = self._levels.get(task.name)
            if levels is None:
                columns.append(with_origin(task, raw[task.name])[:, 0].astype(np.float64))
            else:
                # A column with one class only has no second one to name.
                columns.append(levels[np.minimum(_class_index(task, raw[task.name]), len(levels) - 1)])
        if self._is_single:
            return columns[0]
        kinds = {column.dtype.kind for column in columns}
        # Classes of strings beside numbers: stacking alone would turn the numbers into strings.
        return np.column_stack(columns) if len(kinds) == 1 or kinds <= set("bif") else np.array(columns, dtype=object).T

    def predict_proba(self, X: Any) -> Any:
        """Return class probabilities ``[N, C]`` per classification column (None for regressions); of the only column if ``y``
        had one dimension."""
        raw = self._outputs(X)
        tables: list[Array | None] = []
        for task in self.tasks_:
            if raw[task.name].ndim == 1:
                tables.append(np.column_stack([1.0 - raw[task.name], raw[task.name]]))
            else:
                tables.append(raw[task.name] if task.name in self._levels else None)
        return tables[0] if self._is_single else tables

    def score(self, X: Any, y: Any) -> float:
        """Return the mean over columns, by ``weights``, of R squared (regressions) and accuracy (classes), at most 1; of columns with a
        ``metric``, that one, negative if lower values of it are better.

        Args:
            X: Numbers, ``[N, F]``.
            y: Labels as in :meth:`fit`; missing ones are left out, and so are columns without any. 1, 1.0 and True are one
                label.

        Raises:
            ValueError: If shapes do not fit, there is no label at all, or a column with a metric has a label that it was not
                fitted on.
        """
        predicted = self.predict(X)
        predicted = predicted[:, None] if self._is_single else predicted
        columns, _ = target_columns(y, len(predicted), fitting=False)
        raw = self._outputs(X) if any(task.metric for task in self.tasks_) else {}
        if len(columns) != len(self.tasks_):
            raise ValueError(f"`y` has {len(columns)} columns; the estimator was fitted on {len(self.tasks_)}.")
        scores, weights = [], []
        importance = column_weights(self.weights, [task.name for task in self.tasks_])
        for index, (task, column) in enumerate(zip(self.tasks_, columns, strict=True)):
            known, answers = column.known, predicted[:, index]
            if not known.any():
                continue
            weights.append(importance[index])
            if task.metric:
                found = raw[task.name] if task.name in self._levels else with_origin(task, raw[task.name])
                scores.append(column_score(task, column, found, self._levels.get(task.name)))
            elif task.name in self._levels:
                scores.append(accuracy_score(label_keys(column.cells[known]), label_keys(answers[known])))
            else:
                scores.append(r2_score(column.numbers()[known], answers[known].astype(float)))
        if not scores:
            raise ValueError("Input y contains NaN only: there is no label to score.")
        return float(np.average(scores, weights=weights))

    def _outputs(self, X: Any) -> dict[str, Array]:
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        numeric = torch.from_numpy(((X - self._center) / self._scale).astype(np.float32))
        parts: dict[str, list[Array]] = {task.name: [] for task in self.tasks_}
        with torch.inference_mode():
            for start in range(0, len(numeric), 1024):
                rows = numeric[start : start + 1024]
                # Backbones of tables read both arrays, even if one has no columns.
                outputs = self.model_({"numeric": rows, "categorical": torch.zeros(len(rows), 0, dtype=torch.int64)})
                for task in self.tasks_:
                    parts[task.name].append(decode_output(task, outputs[task.name]).numpy())
        return {name: np.concatenate(chunks) for name, chunks in parts.items()}

    def _suite(self, X: Array, targets: Sequence[LearnedTarget], seed: int, groups: NDArray[np.int64] | None) -> Suite:
        held = held_rows(len(X), self.validation_fraction, groups, seed)
        # A task whose few labels all fell into the validation part could not be learned.
        if not all(_has_label(one.target[~held]) for one in targets):
            held[:] = False
        train = np.flatnonzero(~held)
        arrays = {one.spec.name: one.target for one in targets}
        tasks = with_metrics([one.spec for one in targets], self.metric)
        tasks = class_weighted(tasks, self.class_weight, self._levels, arrays, train)
        return Suite.of_arrays(
            name="arrays",
            input_specs=table_input(X.shape[1]),
            tasks=tasks,
            inputs={
                "numeric": ((X - self._center) / self._scale).astype(np.float32),
                "categorical": np.zeros((len(X), 0), np.int64),
            },
            targets=arrays,
            # No test rows: whoever calls keeps their own.
            splits={"train": train, "val": np.flatnonzero(held), "test": train[:0]},
            groups=groups,
        )


def _has_label(target: Array) -> bool:
    return bool((~np.isnan(target) if target.dtype.kind == "f" else target >= 0).any())


def _class_index(task: TaskSpec, output: Array) -> Array:
    return says_yes(task, output).astype(np.int64) if output.ndim == 1 else chosen_class(task, output)


def _decided(suite: Suite, learner: Any) -> tuple[TaskSpec, ...]:
    """Return the tasks with the thresholds that their metrics want, where validation rows clearly say so."""
    rows = suite.splits["val"]
    found, units = learner.predict(rows), rows if suite.groups is None else suite.groups[rows]
    tasks = []
    for task in suite.tasks:
        chosen = kept_thresholds(task, suite.targets[task.name][rows], found[task.name], units) if task.metric else None
        tasks.append(with_thresholds(task, chosen.thresholds if chosen else None))
    return tuple(tasks)
