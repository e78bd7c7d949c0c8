"""Stacked targets as a plan: a forest for each target that sees the columns and what first forests say of all targets.

The first forests' predictions of training rows come from folds that lack these rows (Spyromitros-Xioufis et al., "Multi-target
regression via input space expansion", 2016; classes like the classifier chains of Read et al. 2011, with probabilities).
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

__all__ = ["ForestChainLearner"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
_FIRST_TREES = 100
_FOLDS = 3


class ForestChainLearner(ForestLearner):
    """Stacked targets: extra trees on the columns and on first predictions of all targets. The chain in which each target sees
    those before it is :class:`~graftwork.domains.tabular.ordered_chain.OrderedChainLearner`.

    Args:
        context: A table suite.
        num_trees: Trees of each second forest, at least 1; with many rows fewer, but at least 50. First forests have at most 100.
        max_features: Share of the columns that a split looks at, in (0, 1].

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
        ConfigError: If a setting is out of range.
    """

    words = "stacked targets"
    slug = "chain"

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.6) -> None:
        super().__init__(context, num_trees=num_trees, max_features=max_features)

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Grow the first forests, predict the training rows with them, grow the second."""
        train = self._sample(self.train_rows, "all")
        x = self._design.matrix(self.context.suite.inputs, train)
        state: State = {}
        first = []
        for index, block in enumerate(self.blocks):
            arrays, found = self._first(index, block, train, x)
            state |= arrays
            first.append(found)
        wide = np.concatenate([x, *first], axis=1)
        shapes = []
        for index, block in enumerate(self.blocks):
            places = np.flatnonzero(block.known[train])
            rows, y = train[places], block.targets(train[places])
            shape = self._half_shape(len(rows), block.width, self._num_trees)
            shape = self._chosen(rows, wide[places], y, shape, f"second {index}")
            forest = self._grow(wide[places], y, shape, f"second {index}")
            if not block.is_number:
                forest = forest.with_values(soften(forest.values, block.shares(train), len(rows)))
            state |= forest.state(f"{index}.")
            shapes.append([shape.num_trees, shape.min_rows])
        return state, {"trees and rows of a leaf, by forest": shapes}

    def _half_shape(self, num_rows: int, num_outputs: int, num_trees: int) -> ForestShape:
        """Return a shape for one of the twice as many forests as there are blocks."""
        return self._shape(num_rows, num_outputs, 2 * len(self.blocks), num_trees=num_trees)

    def _first(self, index: int, block: LabelBlock, train: Rows, x: Array) -> tuple[State, NDArray[np.float32]]:
        """Return the arrays of a block's first forest, and its predictions of training rows ``[n, width]``: those of rows with a
        label from folds that lack them."""
        places = np.flatnonzero(block.known[train])
        rows, y, name = train[places], block.targets(train[places]), f"first {index}"
        shape = self._half_shape(len(rows), block.width, min(_FIRST_TREES, self._num_trees))
        forest = self._grow(x[places], y, shape, name)
        found = forest.predict(x)
        generator = Seeds(self.context.seed).numpy(f"folds {name}")
        for fit, held in inner_folds(self.context.suite, rows, generator, folds=_FOLDS, every=True):
            part = ForestShape(shape.num_trees, shape.min_rows, min(shape.tree_rows, len(fit)))
            found[places[held]] = self._grow(x[places[fit]], y[fit], part, name).predict(x[places[held]])
        return forest.state(f"first.{index}."), found.astype(np.float32)

    def _wide(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> Array:
        x = self._design.matrix(inputs, rows)
        first = [self._forest(state, f"first.{index}.").predict(x).astype(np.float32) for index in range(len(self.blocks))]
        return np.concatenate([x, *first], axis=1)

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return means over the trees of the second forests."""
        wide = self._wide(state, inputs, rows)
        return [self._forest(state, f"{index}.").predict(wide) for index in range(len(self.blocks))]

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add both rows of forests to a graph."""
        x = self._design.graph(graph)
        first = [self._forest(state, f"first.{index}.").graph(graph, x) for index in range(len(self.blocks))]
        wide = graph.concat([x, *(graph.cast(found, np.float32) for found in first)])
        return [self._forest(state, f"{index}.").graph(graph, wide) for index in range(len(self.blocks))]
