"""CatBoost, one model per target (Prokhorenkova et al. 2018, https://catboost.ai): an optional plan beside LightGBM.

Its trees ask the same question at each level. Shares nothing between tasks. A step is :data:`ROUNDS` boosting rounds of every target that
still gains. Nothing random takes part, so that training in slices gives the same trees as in one go.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.core.scratch import scratch_folder
from graftwork.domains.tabular.boosted_learner import BoostedLearner
from graftwork.domains.tabular.boosting import BoosterData, SteppedBooster
from graftwork.domains.tabular.tree_tables import IndicatorTable, dump_constant, dump_split
from graftwork.domains.tabular.xgboost import base_scores
from graftwork.interfaces.learner import LearnerContext

__all__ = ["ROUNDS", "CatBoostLearner", "CatBooster"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
ROUNDS = 20
"""Rounds of a step: a call of the library costs as much as some of them."""
_LOSSES = {"regression": "RMSE", "binary": "Logloss", "multiclass": "MultiClass"}
_UNSEEN = -10.0
"""Score of classes that no training row has, beside the others."""


def _library() -> Any:
    return require("catboost", extra="boosters", purpose="The CatBoost plan")


class CatBooster(SteppedBooster):
    """CatBoost's trees for one target.

    Args:
        data: Its rows; at least one training row.
        objective: ``regression``, ``binary`` or ``multiclass``.
        num_classes: Classes of a multiclass target; 1 otherwise.
        params: Further parameters of CatBoost.
        table: Where the columns come from.
        patience: Steps without a better validation loss after which training stops.
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
        self._table = table
        self._params = {"loss_function": _LOSSES[objective], "iterations": ROUNDS, **params}
        labels = np.unique(data.train_y)
        self._present = labels.astype(np.int64) if num_classes > 1 else np.zeros(1, dtype=np.int64)
        # CatBoost refuses labels that are all alike, and columns that are.
        self._is_constant = len(labels) < 2 or not (data.train_x != data.train_x[:1]).any()
        self._base = base_scores(data, objective, num_classes)
        self._model: Any = None
        self._stored = b""

    def _grow(self) -> None:
        if self._is_constant:
            return
        y = self._data.train_y
        labels = np.searchsorted(self._present, y) if self.num_classes > 1 else y
        model = _library().CatBoost(self._params)
        model.fit(_library().Pool(self._data.train_x, labels, weight=self._data.train_weight), init_model=self._model)
        # As it would come from a checkpoint: what goes on from there must go on from the same digits.
        self._take(_saved(model, "cbm"))

    def _take(self, stored: bytes) -> None:
        self._stored, self._model = stored, None
        if stored:
            self._model = _library().CatBoost()
            self._model.load_model(blob=stored)

    def _raw(self, x: Array, start: int, count: int) -> Floats:
        if self._is_constant or self._model is None or count <= 0:
            return np.tile(self._base if start == 0 else np.zeros_like(self._base), (len(x), 1))
        found = np.full((len(x), self.num_classes), _UNSEEN if start == 0 else 0.0)
        # It adds what holds for all rows to the first tree.
        part = self._model.predict(
            x,
            prediction_type="RawFormulaVal",
            ntree_start=start * ROUNDS,
            ntree_end=(start + count) * ROUNDS,
            thread_count=self._params["thread_count"],
        )
        found[:, self._present] = np.asarray(part, dtype=np.float64).reshape(len(x), -1)
        return found

    def trees(self) -> list[dict[str, Any]]:
        """Return the trees of the best steps as LightGBM dumps them; tree ``i`` adds to output ``i % num_classes``."""
        if self._is_constant or self._model is None or not self.best_rounds:
            return [dump_constant(value) for value in self._base.tolist()]
        stored = json.loads(_saved(self._model, "json"))
        scale, bias = stored["scale_and_bias"]
        base = np.full(self.num_classes, _UNSEEN)
        base[self._present] = bias
        found = [dump_constant(value) for value in base.tolist()]
        for tree in stored["oblivious_trees"][: self.best_rounds * ROUNDS]:
            values = scale * np.asarray(tree["leaf_values"], dtype=np.float64).reshape(-1, len(self._present))
            places = {int(one): place for place, one in enumerate(self._present)}
            found += [
                self._dump(tree, values[:, places[index]]) if index in places else dump_constant(0.0)
                for index in range(self.num_classes)
            ]
        return found

    def _dump(self, tree: Mapping[str, Any], values: Floats) -> dict[str, Any]:
        """Return one output of a tree; the answers to the questions of its levels are the bits of a leaf's number."""
        splits = tree.get("splits") or []

        def walk(level: int, leaf: int) -> dict[str, Any]:
            if level == len(splits):
                return {"leaf_value": float(values[leaf])}
            split = splits[level]
            low, high = walk(level + 1, leaf), walk(level + 1, leaf | 1 << level)
            return dump_split(self._table, int(split["float_feature_index"]), float(split["border"]), low, high, level)

        return {"tree_structure": walk(0, 0), "num_leaves": len(values)}

    def to_text(self, *, best: bool = False) -> str:
        """Return the model in CatBoost's binary format, in base 64: all steps, or the best ones only."""
        if self._model is None:
            return ""
        stored = self._stored
        if best and 0 < self.best_rounds < self.rounds:
            model = self._model.copy()
            model.shrink(self.best_rounds * ROUNDS)
            stored = _saved(model, "cbm")
        return base64.b64encode(stored).decode()

    def _open(self, text: str) -> None:
        self._take(base64.b64decode(text))


def _saved(model: Any, form: str) -> bytes:
    """Return a model in one of CatBoost's formats, which it writes to files alone."""
    with scratch_folder("catboost") as folder:
        file = Path(folder) / "model"
        model.save_model(str(file), format=form)
        return file.read_bytes()


class CatBoostLearner(BoostedLearner):
    """CatBoost's trees for every target; categories with few levels are seen level by level, codes of others as numbers.

    Args:
        context: A table suite; ``max_steps`` is the most steps of 20 rounds. Overrides of the training loop do not apply to trees.
        learning_rate: Shrinkage of each tree, in (0, 1].
        depth: Questions of a tree, from 1 to 16.
        l2: Penalty on leaf values, at least 0.
        patience: Steps without gain on the validation rows after which a target stops.

    Raises:
        MissingDependencyError: If CatBoost is not installed.
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "CatBoost"
    slug = "catboost"
    suffix = "cbm.txt"

    def __init__(
        self, context: LearnerContext, *, learning_rate: float = 0.08, depth: int = 6, l2: float = 3.0, patience: int = 4
    ) -> None:
        _library()
        self._params = {
            "learning_rate": learning_rate,
            "depth": depth,
            "l2_leaf_reg": l2,
            "thread_count": context.threads,
            "random_seed": context.seed % 2**31,
            "boosting_type": "Plain",
            "bootstrap_type": "No",
            "random_strength": 0.0,
            "logging_level": "Silent",
            "allow_writing_files": False,
        }
        self._table: IndicatorTable | None = None
        super().__init__(context, patience=patience)

    @property
    def table(self) -> IndicatorTable:
        """The columns that the trees see."""
        if self._table is None:
            self._table = IndicatorTable(self.context.suite)
        return self._table

    @property
    def still_improving(self) -> bool:
        """Whether a target gained in its last step."""
        return any(booster.rounds == booster.best_rounds and booster.rounds > 1 for booster in self._all)

    def design(self, inputs: Mapping[str, Array], rows: NDArray[np.int64]) -> Array:
        """Return the columns that the trees see."""
        return self.table.matrix(inputs, rows)

    def booster(self, data: BoosterData, objective: str, num_classes: int) -> CatBooster:
        """Return an untrained booster."""
        return CatBooster(data, objective, num_classes, self._params, self.table, patience=self._patience)
