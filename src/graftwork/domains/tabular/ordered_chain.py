"""Chains of targets as a plan: a forest for each target that sees the columns and the predictions of the targets before it.

Regressor chains: Spyromitros-Xioufis et al., "Multi-target regression via input space expansion", 2016; classifier chains: Read et
al., "Classifier chains for multi-label classification", 2011. Predictions of training rows come from folds that lack these rows
(the "corrected" chains of the first paper), and classes are handed on as probabilities. The order is taken from the data: first
the target that the columns alone predict best on held-out rows, since what it hands on can be trusted most. The papers draw orders
at random and average over many; one order keeps the model small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.forest import ForestShape
from graftwork.domains.tabular.forests import ForestLearner, soften
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.one_shot import State
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.interfaces.learner import LearnerContext

__all__ = ["OrderedChainLearner"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_ORDER_TREES = 40
"""Trees of the forests that say how well the columns alone predict a target."""
_FOLDS = 3


class OrderedChainLearner(ForestLearner):
    """Extra trees in a chain: each target sees what was said of those before it.

    Args:
        context: A table suite.
        num_trees: Trees of each forest, at least 1; with many rows fewer, but at least 50.
        max_features: Share of the columns that a split looks at, in (0, 1].

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
        ConfigError: If a setting is out of range.
    """

    words = "chain of targets"
    slug = "ordered-chain"
    has_own_models = False  # a forest is needed for the targets after it as well

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.6) -> None:
        super().__init__(context, num_trees=num_trees, max_features=max_features)

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Find the order, then grow the forests one behind the other."""
        train = self._sample(self.train_rows, "all")
        wide = self._design.matrix(self.context.suite.inputs, train)
        errors = [self._error_alone(index, block, train, wide) for index, block in enumerate(self.blocks)]
        order = np.argsort(errors, kind="stable")
        state: State = {"order": order.astype(np.int64)}
        shapes = {}
        for index in order.tolist():
            forest, said, shape = self._link(index, self.blocks[index], train, wide)
            state |= forest.state(f"{index}.")
            wide = np.concatenate([wide, said.astype(np.float32)], axis=1)
            shapes[index] = [shape.num_trees, shape.min_rows]
        facts = {"order": [self.blocks[index].task.name for index in order.tolist()]}
        return state, {**facts, "trees and rows of a leaf, by forest": [shapes[index] for index in range(len(self.blocks))]}

    def _folds(self, rows: Rows, index: int) -> list[tuple[Rows, Rows]]:
        generator = Seeds(self.context.seed).numpy(f"folds {index}")
        return list(inner_folds(self.context.suite, rows, generator, folds=_FOLDS, every=True))

    def _error_alone(self, index: int, block: LabelBlock, train: Rows, x: Array) -> float:
        """Return the squared error on held-out rows of a small forest that sees the columns alone, as a share of the variance."""
        places = np.flatnonzero(block.known[train])
        y = block.targets(train[places])
        shape = self._shape(len(places), block.width, len(self.blocks), num_trees=min(_ORDER_TREES, self._num_trees))
        error, spread = 0.0, 0.0
        for fit, held in self._folds(train[places], index):
            part = ForestShape(shape.num_trees, shape.min_rows, min(shape.tree_rows, len(fit)))
            found = self._grow(x[places[fit]], y[fit], part, f"alone {index}").predict(x[places[held]])
            error += float(np.square(found - y[held]).sum())
            spread += float(np.square(y[fit].mean(axis=0) - y[held]).sum())
        # What never changes tells the others nothing.
        return error / spread if spread > 0 else np.inf

    def _link(self, index: int, block: LabelBlock, train: Rows, wide: Array) -> tuple[Any, Floats, ForestShape]:
        """Return a target's forest, and what it says of the training rows ``[n, width]``: of rows with a label by forests that did
        not see them."""
        places = np.flatnonzero(block.known[train])
        rows, y, name = train[places], block.targets(train[places]), f"link {index}"
        shape = self._shape(len(rows), block.width, len(self.blocks))
        shape = self._chosen(rows, wide[places], y, shape, name)
        forest = self._grow(wide[places], y, shape, name)
        said = forest.predict(wide)
        for fit, held in self._folds(rows, index):
            part = ForestShape(shape.num_trees, shape.min_rows, min(shape.tree_rows, len(fit)))
            said[places[held]] = self._grow(wide[places[fit]], y[fit], part, name).predict(wide[places[held]])
        if not block.is_number:
            shares = block.shares(train)
            forest = forest.with_values(soften(forest.values, shares, len(rows)))
            said = soften(said, shares, len(rows)).astype(np.float64)
        return forest, said, shape

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return means over the trees, target behind target."""
        wide, found = self._design.matrix(inputs, rows), {}
        for index in state["order"].tolist():
            found[index] = self._forest(state, f"{index}.").predict(wide)
            wide = np.concatenate([wide, found[index].astype(np.float32)], axis=1)
        return [found[index] for index in range(len(self.blocks))]

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the forests to a graph, one behind the other."""
        wide, found = self._design.graph(graph), {}
        for index in state["order"].tolist():
            found[index] = self._forest(state, f"{index}.").graph(graph, wide)
            wide = graph.concat([wide, graph.cast(found[index], np.float32)])
        return [found[index] for index in range(len(self.blocks))]
