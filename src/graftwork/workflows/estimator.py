"""One plan as a scikit-learn estimator: several targets in one ``y``, numbers and classes mixed.

The whole race is ``graftwork.fit``; this trains a single plan of the portfolio on arrays, for pipelines, searches and
cross-validation.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
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
from graftwork.core.seeds import Seeds
from graftwork.data.reading.target_arrays import origin_of
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.tasks.decode import decode_output
from graftwork.tasks.values import with_origin
from graftwork.training.stages import learner_of
from graftwork.workflows.estimator_targets import has_fractions, label_keys, target_columns
from graftwork.workflows.portfolio import portfolio

__all__ = ["MultiTaskEstimator"]

Array = NDArray[Any]


class MultiTaskEstimator(BaseEstimator):
    """Learns all columns of ``y`` together.

    Args:
        plan: Name of a neural plan for tables (``graftwork fit --help`` lists them), such as ``"shared-trunk"``, ``"separate"``
            or ``"mmoe"``.
        max_steps: Optimiser steps.
        kinds: ``"auto"`` (columns of floats with fractions are regressions, everything else classes), or one of ``"regression"``
            and ``"classes"`` per column.
        validation_fraction: Share of the rows that chooses the best weights, in [0, 1); 0 keeps the last.
        training: Settings of :class:`graftwork.training.config.TrainConfig`, such as ``{"learning_rate": 1e-3}``.
        random_state: Seed; an integer repeats bit for bit.

    Attributes:
        tasks_: The tasks as :class:`~graftwork.core.records.TaskSpec`, one per column.
        classes_: Classes of each column (None for a regression); of the only column if ``y`` has one dimension.
        n_features_in_: Number of columns of ``X``.

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
        validation_fraction: float = 0.1,
        training: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.plan = plan
        self.max_steps = max_steps
        self.kinds = kinds
        self.validation_fraction = validation_fraction
        self.training = training
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.two_d_labels = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Train.

        Args:
            X: Numbers, ``[N, F]``.
            y: One target ``[N]`` or several ``[N, T]``.

        Raises:
            ValueError: If shapes do not fit, values are missing or infinite, or the plan does not exist.
        """
        X = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        targets, self._is_single = target_columns(y, len(X))
        # A generator that was handed in moves on: two fits in a row then differ, as in scikit-learn.
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._center = X.mean(axis=0)
        scale = X.std(axis=0)
        # Constant columns: 0 / 1 in place of a division by zero.
        self._scale = np.where(scale > 1e-12, scale, 1.0)
        suite = self._suite(X, targets, seed)
        self.tasks_ = suite.tasks
        classes = [self._levels.get(task.name) for task in suite.tasks]
        self.classes_ = classes[0] if self._is_single else classes
        # a single target is fine here: sharing and balancing of one task is plain training
        plan = next(plan for plan in portfolio(["table"], max(2, len(suite.tasks)), names=[self.plan]) if plan.name == self.plan)
        if not plan.train.learner.path.endswith(":NeuralLearner"):
            raise ConfigError(
                f"`plan` must be a neural plan for an estimator; {self.plan!r} is not. Use scikit-learn's own for trees."
            )
        with tempfile.TemporaryDirectory(prefix="graftwork-") as cache:
            learner: Any = learner_of(
                LearnerContext(
                    suite=suite,
                    plan=plan,
                    seed=seed,
                    max_steps=self.max_steps,
                    cache=Path(cache),
                    threads=torch.get_num_threads(),
                    overrides=dict(self.training or {}),
                )
            )
            learner.train(self.max_steps)
        self.model_ = learner.best_model
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
                columns.append(levels[_class_index(raw[task.name])])
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
        """Return the mean over columns of R squared (regressions) and accuracy (classes); 1, 1.0 and True are one label."""
        targets, _ = target_columns(y, None, fitting=False)
        predicted = self.predict(X)
        predicted = predicted[:, None] if self._is_single else predicted
        scores = [
            r2_score(targets[index].astype(float), predicted[:, index].astype(float))
            if task.name not in self._levels
            else accuracy_score(label_keys(targets[index]), label_keys(predicted[:, index]))
            for index, task in enumerate(self.tasks_)
        ]
        return float(np.mean(scores))

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

    def _suite(self, X: Array, targets: Sequence[Array], seed: int) -> Suite:
        kinds = self.kinds if not isinstance(self.kinds, str) else [self.kinds] * len(targets)
        if len(kinds) != len(targets) or any(kind not in ("auto", "regression", "classes") for kind in kinds):
            raise ConfigError(
                f"`kinds` is 'auto', or one of 'regression' and 'classes' per column ({len(targets)}); got {self.kinds!r}."
            )
        self._levels: dict[str, Array] = {}
        tasks, arrays = [], {}
        for index, kind in enumerate(kinds):
            column, name = targets[index], f"y{index}"
            if kind == "regression" or (kind == "auto" and has_fractions(column)):
                values = column.astype(np.float64)[:, None]
                origin = origin_of(values)
                details = {"origin": list(origin)} if origin else {}
                tasks.append(TaskSpec(name=name, kind="regression", size=1, details=details))
                arrays[name] = (values - np.asarray(origin or 0.0)).astype(np.float32)
                continue
            levels, codes = _classes(column)
            self._levels[name] = levels
            binary = len(levels) <= 2
            tasks.append(TaskSpec(name=name, kind="binary" if binary else "multiclass", size=1 if binary else len(levels)))
            arrays[name] = codes.astype(np.int64)
        order = Seeds(seed).numpy("validation").permutation(len(X))
        # Below 20 rows a validation part says nothing, and costs training rows.
        held = int(self.validation_fraction * len(X)) if len(X) >= 20 else 0
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
            splits={"train": np.sort(order[held:]), "val": np.sort(order[:held]), "test": order[:0]},
        )


def _classes(column: Array) -> tuple[Array, Array]:
    """Return the classes of a column, sorted, and the class of each row.

    Raises:
        ValueError: If labels cannot be put in order, such as numbers and strings.
    """
    try:
        return np.unique(column, return_inverse=True)
    except TypeError:
        raise ValueError("A column of `y` mixes numbers and strings. Write its labels in one type.") from None


def _class_index(output: Array) -> Array:
    return (output > 0.5).astype(np.int64) if output.ndim == 1 else np.asarray(output.argmax(axis=1))
