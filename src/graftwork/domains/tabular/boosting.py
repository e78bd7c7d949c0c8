"""One gradient-boosted target: trained round by round, stopped early on validation rows, stored as LightGBM's own text.

Nothing random takes part (no bagging, no feature sampling), so that training in slices, with a save and load between them, gives
the same trees bit for bit as training in one go: LightGBM's text format keeps every digit.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require

__all__ = ["Booster", "BoosterData", "SteppedBooster", "lightgbm"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
_NUM_LEAVES = re.compile(r"^num_leaves=(\d+)$", flags=re.MULTILINE)
"""A line of each tree in LightGBM's text format."""
TREES_AT_A_TIME = 128
"""Trees that rows are sent through in one call."""


def lightgbm() -> Any:
    """Import LightGBM.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    return require("lightgbm", extra="tables", purpose="The LightGBM plan")


@dataclass(frozen=True, slots=True)
class BoosterData:
    """Rows of one target, unlabelled ones left out."""

    train_x: Array
    train_y: Array
    val_x: Array
    val_y: Array
    categorical: Sequence[int]
    """Columns whose values are category codes."""
    train_weight: Floats | None = None
    """Weight of each row, ``[N]``; None weighs all alike."""
    val_weight: Floats | None = None


def _softmax(raw: Floats) -> Floats:
    shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _sigmoid(raw: Floats) -> Floats:
    # The sigmoid without an exponential that can overflow.
    return 0.5 * (1.0 + np.tanh(0.5 * raw))


class SteppedBooster(ABC):
    """Boosted trees for one target that are grown step by step; what a step adds is looked at on validation rows.

    Args:
        data: Its rows; at least one training row.
        objective: ``regression``, ``binary`` or ``multiclass``.
        num_classes: Classes of a multiclass target; 1 otherwise.
        patience: Steps without a better validation loss after which training stops.
    """

    def __init__(self, data: BoosterData, objective: str, num_classes: int, *, patience: int) -> None:
        self.objective, self.num_classes, self.patience = objective, num_classes, patience
        self._data = data
        self._val_raw: Floats | None = np.zeros((len(data.val_y), num_classes))
        self.best_loss, self.best_rounds, self.rounds = float("inf"), 0, 0

    @abstractmethod
    def _grow(self) -> None:
        """Train one more step."""

    @abstractmethod
    def _raw(self, x: Array, start: int, count: int) -> Floats:
        """Return what some steps add, ``[N, num_classes]``; the first one with what holds for all rows, and none with that alone."""

    @abstractmethod
    def trees(self) -> list[dict[str, Any]]:
        """Return the trees of the best steps as LightGBM dumps them; tree ``i`` adds to output ``i % num_classes``."""

    def num_leaves(self) -> int:
        """Return how many leaves the trees of the best steps have together."""
        return sum(tree.get("num_leaves", 1) for tree in self.trees())

    @abstractmethod
    def to_text(self, *, best: bool = False) -> str:
        """Return the model in the library's own format, as text: all steps, or the best ones only; empty before the first step."""

    @abstractmethod
    def _open(self, text: str) -> None:
        """Go back to the model of :meth:`to_text`, that of all steps; an empty text is none."""

    @property
    def is_done(self) -> bool:
        """Whether more rounds have not helped for a while."""
        # A booster that has not begun is not done, whatever the patience.
        return self.rounds - self.best_rounds >= self.patience and self.rounds > 0

    def advance(self) -> None:
        """Train one more round."""
        self._grow()
        self.rounds += 1
        if len(self._data.val_y):
            # Only the new tree is walked: predicting all rounds anew would make training quadratic in them.
            before = self._raw_of_rounds(self.rounds - 1) if self._val_raw is None else self._val_raw
            self._val_raw = before + self._raw(self._data.val_x, self.rounds - 1, 1)
            loss = self._loss(self._val_raw)
        else:
            loss = -float(self.rounds)  # nothing to stop on: the last round counts
        if loss < self.best_loss:
            self.best_loss, self.best_rounds = loss, self.rounds

    def _loss(self, raw: Floats) -> float:
        y = self._data.val_y
        if self.objective == "regression":
            return float(np.mean((raw[:, 0] - y) ** 2))
        if self.objective == "binary":
            # log(1 + exp(-margin)), safe for margins of any size.
            losses = np.logaddexp(0.0, np.where(y > 0, -raw[:, 0], raw[:, 0]))
        else:
            picked = np.take_along_axis(_softmax(raw), y.astype(np.int64)[:, None], axis=1)
            losses = -np.log(np.maximum(picked[:, 0], 1e-15))
        return float(np.average(losses, weights=self._data.val_weight))

    def predict(self, x: Array) -> Floats:
        """Return probabilities ``[N, num_classes]`` (binary: of class 1) or values ``[N, 1]``, from the best rounds so far."""
        raw = self._raw(x, 0, self.best_rounds) if len(x) else np.zeros((0, self.num_classes))
        if self.objective == "binary":
            return _sigmoid(raw)
        return _softmax(raw) if self.objective == "multiclass" else raw

    def state(self) -> dict[str, Any]:
        """Return JSON values that :meth:`restore` takes beside the text."""
        return {"rounds": self.rounds, "best_rounds": self.best_rounds, "best_loss": self.best_loss if self.rounds else None}

    def restore(self, state: Mapping[str, Any], text: str) -> None:
        """Go back to a stored state."""
        self.rounds, self.best_rounds = int(state["rounds"]), int(state["best_rounds"])
        self.best_loss = float("inf") if state["best_loss"] is None else float(state["best_loss"])
        self._open(text)
        # Only a booster that goes on needs them; many are restored to predict.
        self._val_raw = None

    def _raw_of_rounds(self, rounds: int) -> Floats:
        """Return the raw outputs of the validation rows after so many rounds."""
        found = np.zeros((len(self._data.val_y), self.num_classes))
        for start in range(rounds):  # round by round, as they were added: the same sum to the last digit
            found = found + self._raw(self._data.val_x, start, 1)
        return found


class Booster(SteppedBooster):
    """LightGBM's trees for one target.

    Args:
        data: Its rows; at least one training row.
        objective: ``regression``, ``binary`` or ``multiclass``.
        num_classes: Classes of a multiclass target; 1 otherwise.
        params: Further LightGBM parameters.
        patience: Rounds without a better validation loss after which training stops.
    """

    def __init__(self, data: BoosterData, objective: str, num_classes: int, params: Mapping[str, Any], *, patience: int) -> None:
        super().__init__(data, objective, num_classes, patience=patience)
        # LightGBM's default of 20 rows a leaf would leave small tables without any split.
        smallest = int(np.clip(len(data.train_y) // 50, 1, 20))
        # Nor can it tell categories of less than 100 rows apart by default, which on small tables are all that there are.
        share = min(1.0, len(data.train_y) / 2000)
        categories = {"min_data_per_group": max(5, int(100 * share)), "cat_smooth": max(1.0, 10 * share)}
        classes = {"num_class": num_classes} if objective == "multiclass" else {}
        self._params = {"objective": objective, "min_data_in_leaf": smallest, "verbosity": -1, **categories, **classes, **params}
        self._booster: Any = None
        self._stored: Any = None
        self._resumes: str | None = None

    def _grow(self) -> None:
        if self._booster is None:
            self._start()
        else:
            self._booster.update()

    def _start(self) -> None:
        library = lightgbm()
        dataset = library.Dataset(
            self._data.train_x,
            label=self._data.train_y,
            weight=self._data.train_weight,
            categorical_feature=list(self._data.categorical),
            params=self._params,
            # Kept: a booster that goes on from a stored one predicts the rows by its old trees first.
            free_raw_data=False,
        )
        if self._resumes is None:
            self._booster = library.Booster(self._params, dataset)
            self._booster.update()
            return
        before = library.Booster(model_str=self._resumes)
        self._booster = library.train(self._params, dataset, num_boost_round=1, init_model=before, keep_training_booster=True)
        self._resumes = self._stored = None

    def _raw(self, x: Array, start: int, count: int) -> Floats:
        model = self._model()
        if count <= 0 or model is None:
            return np.zeros((len(x), self.num_classes))
        # LightGBM sends one row after the other through all trees it is asked for: thousands of them do not fit into the caches of
        # a processor, and take three times as long as some hundred at a time.
        size = max(1, TREES_AT_A_TIME // self.num_classes)
        found = np.zeros((len(x), self.num_classes))
        for begin in range(start, start + count, size):
            part = model.predict(
                x,
                raw_score=True,
                start_iteration=begin,
                num_iteration=min(size, start + count - begin),
                num_threads=self._params["num_threads"],
            )
            found += np.asarray(part, dtype=np.float64).reshape(found.shape)
        return found

    def _model(self) -> Any:
        """Return the booster; a stored one is opened, and does not train yet."""
        if self._booster is None and self._resumes is not None:
            if self._stored is None:
                self._stored = lightgbm().Booster(model_str=self._resumes)
            return self._stored
        return self._booster

    def trees(self) -> list[dict[str, Any]]:
        """Return the trees of the best rounds as LightGBM dumps them; tree ``i`` adds to output ``i % num_classes``."""
        model = self._model()
        # LightGBM would take 0 rounds for all of them.
        if model is None or self.best_rounds == 0:
            return []
        return model.dump_model(num_iteration=self.best_rounds)["tree_info"]

    def num_leaves(self) -> int:
        """Return how many leaves the trees of the best rounds have together."""
        # From the text, which costs a small part of what a dump and its parsing cost.
        return sum(map(int, _NUM_LEAVES.findall(self.to_text(best=True)))) if self.best_rounds else 0

    def to_text(self, *, best: bool = False) -> str:
        """Return the model in LightGBM's text format: all rounds, or the best ones only."""
        model = self._model()
        if model is None:
            return ""
        return model.model_to_string(num_iteration=self.best_rounds if best else -1)

    def _open(self, text: str) -> None:
        self._booster, self._stored, self._resumes = None, None, text or None
