"""Linear models as plans: ridge and logistic regression for each target, or on few directions that all targets share.

The penalty is chosen on held-out training rows, and so is whether numbers are taken as they are or bent (see
:mod:`~graftwork.domains.tabular.smooth_design`). Scikit-learn (https://scikit-learn.org) fits logistic regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.linear_fits import (
    INVERSE_PENALTIES,
    RidgePath,
    choose_ridge,
    fit_logistic,
    logistic_losses,
)
from graftwork.domains.tabular.one_shot import BlockLearner, State
from graftwork.domains.tabular.smooth_design import SmoothDesign
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.interfaces.learner import LearnerContext

__all__ = ["LinearLearner", "spaced"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
Pairs = Sequence[tuple[Rows, Rows]]
MOST_CELLS = 30_000_000
"""Cells of the table that a model is fitted on: of more rows a random sample is used."""
_LOGISTIC_WORK = 2e9
"""Products of a cell with a class in all fits of logistic regression for one setting, roughly."""
_STEPS = 60


class LinearLearner(BlockLearner):
    """Ridge regression for numbers and logistic regression for classes, a model for each target.

    Args:
        context: A table suite.

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "linear model"
    slug = "linear"

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        self._design = SmoothDesign.of_suite(context.suite, self.blocks)

    # --- fitting ---

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Choose and fit a model for each block."""
        weights = np.zeros((self._design.width, sum(block.width for block in self.blocks)))
        intercepts = np.zeros(weights.shape[1])
        facts: dict[str, Any] = {}
        places = self._places()
        for members in self._together():
            rows, x, folds = self._prepared([self.blocks[index] for index in members])
            numbers = [index for index in members if self.blocks[index].is_number]
            if numbers:
                self._fit_numbers(numbers, rows, x, folds, weights, intercepts, facts)
            for index in set(members) - set(numbers):
                block = self.blocks[index]
                columns, inverse = self._choose_classes(block, rows, x, folds)
                found = self._logistic(block, rows, x[:, columns], inverse)
                weights[np.ix_(columns, places[index])], intercepts[places[index]] = found
                facts[str(index)] = {"inverse penalty": inverse, "numbers": self._words(columns)}
        return {"weights": weights, "intercepts": intercepts}, {"settings by target": facts}

    def _places(self) -> list[Rows]:
        """Return the columns of each block among those of all."""
        ends = np.cumsum([block.width for block in self.blocks])
        return [np.arange(end - block.width, end) for end, block in zip(ends, self.blocks, strict=True)]

    def _together(self) -> list[list[int]]:
        """Return blocks that have labels on the same rows: they share their decompositions."""
        found: dict[bytes, list[int]] = {}
        for index, block in enumerate(self.blocks):
            found.setdefault(block.known[self.train_rows].tobytes(), []).append(index)
        return list(found.values())

    def _sample(self, rows: Rows, most: int) -> Rows:
        if len(rows) <= most:
            return rows
        return np.sort(Seeds(self.context.seed).numpy("rows").choice(rows, most, replace=False))

    def _prepared(self, blocks: Sequence[LabelBlock]) -> tuple[Rows, Floats, Pairs]:
        """Return the rows that have a label of one of the blocks, their features, and folds of them."""
        known = np.any([block.known[self.train_rows] for block in blocks], axis=0)
        rows = self._sample(self.train_rows[known], max(1000, MOST_CELLS // self._design.width))
        folds = list(inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy("folds")))
        return rows, self._design.matrix(self.context.suite.inputs, rows), folds

    def _words(self, columns: Rows) -> str:
        return "plain" if len(columns) and columns[0] == 0 else "bent"

    def _designs(self) -> list[Rows]:
        """Return the sets of columns that are tried."""
        return [self._design.plain, self._design.bent] if len(self._design.numbers) else [self._design.plain]

    def _fit_numbers(
        self, numbers: Sequence[int], rows: Rows, x: Floats, folds: Pairs, weights: Floats, intercepts: Floats, facts: Any
    ) -> None:
        """Fit ridge regression for blocks of numbers, into columns of ``weights`` and ``intercepts``."""
        y = np.concatenate([self.blocks[index].targets(rows) for index in numbers], axis=1)
        designs = self._designs()
        chosen = [choose_ridge(x[:, columns], y, folds) for columns in designs]
        better = np.argmin([errors for _, errors in chosen], axis=0)
        places = self._places()
        for choice, columns in enumerate(designs):
            mine = np.flatnonzero(better == choice).tolist()
            if not mine:
                continue
            penalties = chosen[choice][0][mine]
            part = x[:, columns]
            found, level = RidgePath.of(part).weights(part, y[:, mine], penalties)
            targets = np.concatenate([places[numbers[place]] for place in mine])
            weights[np.ix_(columns, targets)], intercepts[targets] = found, level
            for place, penalty in zip(mine, penalties, strict=True):
                facts[str(numbers[place])] = {"penalty": float(penalty), "numbers": self._words(columns)}

    def _logistic_rows(self, block: LabelBlock, num_columns: int) -> int:
        return int(max(500, _LOGISTIC_WORK / (_STEPS * num_columns * block.width)))

    def _choose_classes(self, block: LabelBlock, rows: Rows, x: Floats, folds: Pairs) -> tuple[Rows, float]:
        """Return the columns and the inverse penalty that predict held-out rows best."""
        classes = block.classes(rows)
        best: tuple[float, Rows, float] = (np.inf, self._designs()[0], 1.0)
        for columns in self._designs():
            most = self._logistic_rows(block, len(columns)) // (2 * len(folds) or 1)
            cut = [(fit[spaced(len(fit), most)], held) for fit, held in folds]
            losses = logistic_losses(x[:, columns], classes, block.num_classes, cut)
            place = int(losses.argmin())
            if losses.any() and losses[place] < best[0]:
                best = (float(losses[place]), columns, INVERSE_PENALTIES[place])
        return best[1], best[2]

    def _logistic(self, block: LabelBlock, rows: Rows, x: Floats, inverse: float) -> tuple[Floats, Floats]:
        places = spaced(len(rows), self._logistic_rows(block, x.shape[1]))
        return fit_logistic(x[places], block.classes(rows[places]), block.num_classes, inverse)

    # --- predicting ---

    def count_numbers(self, state: State) -> int:
        """Return the number of weights that are not 0."""
        return sum(int(np.count_nonzero(array)) for array in state.values())

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return values and probabilities."""
        raw = self._design.matrix(inputs, rows) @ state["weights"] + state["intercepts"]
        return [_answers(block, raw[:, place]) for block, place in zip(self.blocks, self._places(), strict=True)]

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the model to a graph."""
        raw = graph.add("Add", graph.add("MatMul", self._design.graph(graph), state["weights"]), state["intercepts"])
        found = []
        for block, place in zip(self.blocks, self._places(), strict=True):
            score = graph.add("Gather", raw, place, axis=1)
            if not block.is_number:
                score = graph.add("Sigmoid", score) if block.width == 1 else graph.add("Softmax", score, axis=1)
            found.append(score)
        return found


def spaced(number: int, most: int) -> Rows:
    """Return at most so many places of ``number``, evenly spaced."""
    return np.linspace(0, number - 1, min(most, number)).astype(np.int64)


def _answers(block: LabelBlock, raw: Floats) -> Floats:
    if block.is_number:
        return raw
    if block.width == 1:
        return 0.5 * (1.0 + np.tanh(0.5 * raw))
    exponents = np.exp(raw - raw.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
