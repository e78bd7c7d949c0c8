"""R-MTGB as scikit-learn estimators: ``fit(X, y, task_ids)``, or the task as a column of ``X``. The method:
:mod:`graftwork.domains.tabular.r_mtgb`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from graftwork.core.errors import DataError
from graftwork.domains.tabular.r_mtgb import Loss, RobustBoosting
from graftwork.domains.tabular.r_mtgb_forest import Blocks, RobustForest
from graftwork.domains.tabular.regression_tree import TreeShape

__all__ = ["RMTGBClassifier", "RMTGBRegressor", "minority_side"]

Array = NDArray[Any]


def minority_side(weights: ArrayLike) -> NDArray[np.int64]:
    """Return the tasks on the smaller side of ``s_r = 0.5``: the outliers. None if a side is empty or both are equal.

    Which of the two common functions ends up as that of the outliers is symmetric, so the smaller group counts.

    Example:
        >>> minority_side([0.1, 0.2, 0.9, 0.05]).tolist()
        [2]
    """
    high = np.asarray(weights) > 0.5
    smaller = high if high.sum() * 2 < len(high) else ~high
    return np.flatnonzero(smaller) if smaller.sum() * 2 < len(high) else np.zeros(0, dtype=np.int64)


class _RobustMultiTask(BaseEstimator):
    """What both estimators share; parameters are those of :class:`RMTGBRegressor`."""

    def __init__(
        self,
        *,
        n_iter_1st: int = 20,
        n_iter_2nd: int = 100,
        n_iter_3rd: int = 40,
        learning_rate: float = 0.1,
        max_leaf_nodes: int | None = 2,
        max_depth: int | None = 3,
        min_samples_leaf: int = 1,
        max_bins: int = 255,
        subsample: float = 1.0,
        task_column: int | str | None = None,
        random_state: Any = None,
    ) -> None:
        self.n_iter_1st = n_iter_1st
        self.n_iter_2nd = n_iter_2nd
        self.n_iter_3rd = n_iter_3rd
        self.learning_rate = learning_rate
        self.max_leaf_nodes = max_leaf_nodes
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.max_bins = max_bins
        self.subsample = subsample
        self.task_column = task_column
        self.random_state = random_state

    tasks_: Array
    """Task ids, sorted."""
    task_weights_: NDArray[np.float64]
    """``s_r`` of each task, in the order of ``tasks_``."""
    outlier_tasks_: Array
    """Ids of the tasks on the smaller side of ``s_r = 0.5``."""
    n_features_in_: int
    """Features, without the task."""

    def _take_task(self, X: Any, task_ids: ArrayLike | None) -> tuple[Any, Array | None]:
        """Return the features and the task ids, from the argument or from the named column."""
        if self.task_column is None:
            return X, None if task_ids is None else np.asarray(task_ids)
        if task_ids is not None:
            raise DataError("Task ids came both as an argument and by `task_column`; give one of them.")
        # A data frame: the task can be named, and may be of another type than the features.
        if hasattr(X, "columns"):
            name = X.columns[self.task_column] if isinstance(self.task_column, int) else self.task_column
            if name not in X.columns:
                raise DataError(f"`task_column` {name!r} is no column of X; the columns are {', '.join(map(str, X.columns))}.")
            return X.drop(columns=[name]), np.asarray(X[name])
        if not isinstance(self.task_column, int):
            raise DataError(f"`task_column` is the name {self.task_column!r}, but X is no data frame; give the column's number.")
        table = np.asarray(X)
        if table.ndim != 2 or not -table.shape[1] <= self.task_column < table.shape[1]:
            raise DataError(f"`task_column` is {self.task_column}, but X has the shape {table.shape}.")
        return np.delete(table, self.task_column, axis=1), table[:, self.task_column]

    def _numbers(self, task_ids: Array | None, rows: int, *, fitting: bool) -> NDArray[np.int64]:
        """Return task numbers ``[N]``; while fitting, learn the ids first."""
        if task_ids is None:
            if not fitting and len(self.tasks_) > 1:
                raise DataError(f"The model knows {len(self.tasks_)} tasks: say by `task_ids` which one each row belongs to.")
            if fitting:
                self.tasks_ = np.zeros(1, dtype=np.int64)
            return np.zeros(rows, dtype=np.int64)
        if task_ids.ndim != 1 or len(task_ids) != rows:
            raise DataError(f"`task_ids` must hold one id for each of the {rows} rows; its shape is {task_ids.shape}.")
        if fitting:
            self.tasks_, numbers = np.unique(task_ids, return_inverse=True)
            return numbers.astype(np.int64)
        # searchsorted gives the end for ids above all known ones; the comparison below finds them out.
        places = np.minimum(np.searchsorted(self.tasks_, task_ids), len(self.tasks_) - 1)
        unknown = self.tasks_[places] != task_ids
        if unknown.any():
            shown = ", ".join(map(str, np.unique(task_ids[unknown])[:5]))
            raise DataError(f"Unknown tasks: {shown}. The model was fitted on {', '.join(map(str, self.tasks_[:20]))}.")
        return places

    def _fit(self, x: Array, y: Array, task: NDArray[np.int64], loss: Loss, num_classes: int) -> Self:
        boosting = RobustBoosting(
            x,
            y,
            task,
            num_tasks=len(self.tasks_),
            loss=loss,
            num_classes=num_classes,
            blocks=Blocks(self.n_iter_1st, self.n_iter_2nd, self.n_iter_3rd),
            learning_rate=self.learning_rate,
            shape=TreeShape(self.max_leaf_nodes, self.max_depth, self.min_samples_leaf, self.max_bins),
            subsample=self.subsample,
            # A generator that is passed in moves on, as scikit-learn's estimators do it.
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        while not boosting.is_done:
            boosting.advance()
        self.forest_: RobustForest = boosting.forest
        self.n_iter_ = boosting.forest.iterations
        self.task_weights_ = boosting.forest.weights()
        self.outlier_tasks_ = self.tasks_[minority_side(self.task_weights_)]
        return self

    def _raw(self, X: Any, task_ids: ArrayLike | None) -> Array:
        check_is_fitted(self, "forest_")
        features, ids = self._take_task(X, task_ids)
        x = validate_data(self, features, reset=False, dtype=np.float32)
        return self.forest_.raw(x, self._numbers(ids, len(x), fitting=False)).T


class RMTGBRegressor(RegressorMixin, _RobustMultiTask):
    """R-MTGB for values, one or several per row; half the squared error.

    Args:
        n_iter_1st: Iterations of the pooled block, ``n1``.
        n_iter_2nd: Iterations of the two competing functions, ``n2``; 0 is MTGB. The block learns slowly: give it 100 or more.
        n_iter_3rd: Iterations of the tasks' own trees, ``n3``.
        learning_rate: ``nu``, above 0.
        max_leaf_nodes: Most leaves of a tree, at least 2, or None. The released code always has 2.
        max_depth: Most splits on the way to a leaf, at least 1, or None.
        min_samples_leaf: Fewest rows in a leaf.
        max_bins: Most intervals of a column, from 2 to 65535. Thresholds are cuts between these intervals, never midpoints of a
            node's own values.
        subsample: Share of the rows that a tree sees, in (0, 1].
        task_column: Column of ``X`` with the task: a number, or a name if ``X`` is a data frame. None: ids come as an argument,
            or there is one task.
        random_state: Seed or generator; draws the initial weights and the samples of rows.
    """

    def fit(self, X: Any, y: ArrayLike, task_ids: ArrayLike | None = None) -> Self:
        """Fit.

        Args:
            X: ``[N, F]``, finite.
            y: ``[N]`` or ``[N, C]``; targets of very different scale should be standardised by task.
            task_ids: Task of each row ``[N]``: numbers or names.

        Raises:
            DataError: If the tasks cannot be read.
            ConfigError: If a parameter is out of range.
        """
        features, ids = self._take_task(X, task_ids)
        x, target = validate_data(self, features, y, dtype=np.float32, multi_output=True, y_numeric=True)
        self._flat = target.ndim == 1
        return self._fit(x, target, self._numbers(ids, len(x), fitting=True), "squared_error", 1)

    def predict(self, X: Any, task_ids: ArrayLike | None = None) -> Array:
        """Return values, shaped as ``y`` was.

        Raises:
            DataError: If a task is not known.
        """
        raw = self._raw(X, task_ids)
        return raw[:, 0] if self._flat else raw

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


class RMTGBClassifier(ClassifierMixin, _RobustMultiTask):
    """R-MTGB for classes that all tasks share: cross-entropy, one tree for all classes. Parameters as :class:`RMTGBRegressor`."""

    def fit(self, X: Any, y: ArrayLike, task_ids: ArrayLike | None = None) -> Self:
        """Fit to class labels ``y`` ``[N]``; otherwise as :meth:`RMTGBRegressor.fit`.

        Raises:
            DataError: If the tasks cannot be read, or there is one class only.
            ConfigError: If a parameter is out of range.
        """
        features, ids = self._take_task(X, task_ids)
        x, target = validate_data(self, features, y, dtype=np.float32)
        check_classification_targets(target)
        self.classes_, numbers = np.unique(target, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"Classification needs at least 2 classes; got {len(self.classes_)} class, {self.classes_[0]!r}.")
        loss: Loss = "binary" if len(self.classes_) == 2 else "softmax"
        return self._fit(x, numbers, self._numbers(ids, len(x), fitting=True), loss, len(self.classes_))

    def decision_function(self, X: Any, task_ids: ArrayLike | None = None) -> Array:
        """Return raw scores ``[N, classes]``; for two classes their difference ``[N]``, the log odds."""
        raw = self._raw(X, task_ids)
        # The raw scores of the two classes are -F and F.
        return 2.0 * raw[:, 0] if len(self.classes_) == 2 else raw

    def predict_proba(self, X: Any, task_ids: ArrayLike | None = None) -> Array:
        """Return probabilities ``[N, classes]``."""
        scores = self.decision_function(X, task_ids)
        if scores.ndim == 1:
            scores = np.stack([-scores / 2.0, scores / 2.0], axis=1)
        exponent = np.exp(scores - scores.max(axis=1, keepdims=True))
        return exponent / exponent.sum(axis=1, keepdims=True)

    def predict(self, X: Any, task_ids: ArrayLike | None = None) -> Array:
        """Return the likeliest class of each row ``[N]``."""
        scores = self.decision_function(X, task_ids)
        return self.classes_[(scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)]
