"""XGBoost, one model per target (Chen and Guestrin 2016, https://xgboost.readthedocs.io): an optional plan beside LightGBM.

Shares nothing between tasks. A step is a boosting round of every target that still gains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.domains.tabular.boosted_learner import BoostedLearner
from graftwork.domains.tabular.boosting import BoosterData, SteppedBooster
from graftwork.domains.tabular.tree_tables import IndicatorTable, dump_constant, dump_split
from graftwork.interfaces.learner import LearnerContext

__all__ = ["XGBoostLearner", "XGBooster", "base_scores"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_OBJECTIVES = {"regression": "reg:squarederror", "binary": "binary:logistic", "multiclass": "multi:softprob"}


def _library() -> Any:
    return require("xgboost", extra="boosters", purpose="The XGBoost plan")


def base_scores(data: BoosterData, objective: str, num_classes: int) -> Floats:
    """Return where trees begin, ``[num_classes]``: the mean, or the logarithms of the shares of classes (of two, their difference)."""
    weight = np.ones(len(data.train_y)) if data.train_weight is None else data.train_weight
    if objective == "regression":
        return np.array([np.average(data.train_y, weights=weight)])
    # A class that is not there counts as half a row.
    counts = np.bincount(data.train_y.astype(np.int64), weights=weight, minlength=max(num_classes, 2))
    logs = np.log(np.maximum(counts, 0.5) / np.maximum(counts, 0.5).sum())
    return np.array([logs[1] - logs[0]]) if num_classes == 1 else logs


class XGBooster(SteppedBooster):
    """XGBoost's trees for one target.

    Args:
        data: Its rows; at least one training row.
        objective: ``regression``, ``binary`` or ``multiclass``.
        num_classes: Classes of a multiclass target; 1 otherwise.
        params: Further parameters of XGBoost.
        table: Where the columns come from.
        patience: Rounds without a better validation loss after which training stops.
    """

    def __init__(
        self,
        data: BoosterData,
        objective: str,
        num_classes: int,
        params: Mapping[str, Any],
        table: IndicatorTable,
        *,
        patience: int,
    ) -> None:
        super().__init__(data, objective, num_classes, patience=patience)
        self._table, self._base = table, base_scores(data, objective, num_classes)
        classes = {"num_class": num_classes} if num_classes > 1 else {}
        # What it would add to all scores itself is nothing: the base is handed in with the rows.
        nothing = 0.5 if objective == "binary" else 0.0
        self._params = {"objective": _OBJECTIVES[objective], "base_score": nothing, "verbosity": 0, **classes, **params}
        self._booster: Any = None
        self._rows: Any = None

    def _grow(self) -> None:
        library = _library()
        if self._rows is None:
            base = np.tile(self._base, (len(self._data.train_y), 1))
            self._rows = library.DMatrix(
                self._data.train_x,
                label=self._data.train_y,
                weight=self._data.train_weight,
                base_margin=base if self.num_classes > 1 else base[:, 0],
                nthread=self._params["nthread"],
            )
        if self._booster is None:
            self._booster = library.Booster(self._params, [self._rows])
        self._booster.update(self._rows, self.rounds)

    def _raw(self, x: Array, start: int, count: int) -> Floats:
        base = np.tile(self._base if start == 0 else np.zeros_like(self._base), (len(x), 1))
        if count <= 0 or self._booster is None:
            return base
        rows = _library().DMatrix(x, nthread=self._params["nthread"])
        found = self._booster.predict(rows, output_margin=True, iteration_range=(start, start + count))
        return base + np.asarray(found, dtype=np.float64).reshape(len(x), self.num_classes)

    def trees(self) -> list[dict[str, Any]]:
        """Return the base and the trees of the best rounds as LightGBM dumps them; tree ``i`` adds to output ``i % num_classes``."""
        found = [dump_constant(value) for value in self._base.tolist()]
        if self._booster is None or not self.best_rounds:
            return found
        model = json.loads(self.to_text(best=True))["learner"]["gradient_booster"]["model"]
        return [*found, *(self._dump(tree) for tree in model["trees"])]

    def _dump(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        left, right, columns = tree["left_children"], tree["right_children"], tree["split_indices"]
        limits = np.asarray(tree["split_conditions"], dtype=np.float32)
        # Values below a limit go left: those up to the next smaller float32.
        below = np.nextafter(limits, np.float32(-np.inf))

        def walk(node: int) -> dict[str, Any]:
            if left[node] < 0:
                return {"leaf_value": float(limits[node])}
            low, high = walk(left[node]), walk(right[node])
            return dump_split(self._table, int(columns[node]), float(below[node]), low, high, node)

        return {"tree_structure": walk(0), "num_leaves": sum(child < 0 for child in left)}

    def to_text(self, *, best: bool = False) -> str:
        """Return the model as XGBoost's JSON; what its scores begin with is not in it, as XGBoost takes it with the rows."""
        if self._booster is None:
            return ""
        model = self._booster[: self.best_rounds] if best and 0 < self.best_rounds < self.rounds else self._booster
        return bytes(model.save_raw("json")).decode()

    def _open(self, text: str) -> None:
        self._booster = None
        if text:
            self._booster = _library().Booster(self._params)
            self._booster.load_model(bytearray(text.encode()))
            self._booster.set_param(self._params)


class XGBoostLearner(BoostedLearner):
    """XGBoost's trees for every target; categories with few levels are seen level by level.

    Args:
        context: A table suite; ``max_steps`` is the most rounds. Overrides of the training loop do not apply to trees.
        learning_rate: Shrinkage of each tree, in (0, 1].
        max_depth: Most splits one below the other, at least 1.
        l2: Penalty on leaf values, at least 0.
        min_child_weight: Least weight of rows (for classes: of their variances) in a leaf.
        patience: Rounds without gain on the validation rows after which a target stops.

    Raises:
        MissingDependencyError: If XGBoost is not installed.
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "XGBoost"
    slug = "xgboost"

    def __init__(
        self,
        context: LearnerContext,
        *,
        learning_rate: float = 0.05,
        max_depth: int = 6,
        l2: float = 1.0,
        min_child_weight: float = 2.0,
        patience: int = 50,
    ) -> None:
        _library()
        self._params = {
            "tree_method": "hist",
            "eta": learning_rate,
            "max_depth": max_depth,
            "lambda": l2,
            "min_child_weight": min_child_weight,
            "nthread": context.threads,
            "seed": context.seed % 2**31,
        }
        self._table: IndicatorTable | None = None
        super().__init__(context, patience=patience)

    @property
    def table(self) -> IndicatorTable:
        """The columns that the trees see."""
        if self._table is None:
            self._table = IndicatorTable(self.context.suite)
        return self._table

    def design(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> Array:
        """Return the columns that the trees see."""
        return self.table.matrix(inputs, rows)

    def booster(self, data: BoosterData, objective: str, num_classes: int) -> XGBooster:
        """Return an untrained booster."""
        return XGBooster(data, objective, num_classes, self._params, self.table, patience=self._patience)
