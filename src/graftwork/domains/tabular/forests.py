"""Extra trees and random forests as plans: a forest for each target, or one forest for all of them.

Extra trees: Geurts et al., "Extremely randomized trees", 2006; random forests: Breiman 2001; one forest for many targets: Kocev et
al., "Ensembles of multi-objective decision trees", 2007. Trees are grown by scikit-learn (https://scikit-learn.org) and stored as
arrays. How many rows a leaf needs is chosen on held-out training rows. With many rows there are fewer trees, then larger leaves,
then fewer rows for each tree: all forests of a model have at most two million nodes and eight million numbers in their leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.seeds import Seeds
from graftwork.domains.tabular.forest import Forest, ForestShape, Kind, columns_looked_at, grow_forest
from graftwork.domains.tabular.inner_folds import inner_folds
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.domains.tabular.one_shot import BlockLearner, State
from graftwork.domains.tabular.suite_graph import GraphBuilder
from graftwork.domains.tabular.table_design import TableDesign
from graftwork.interfaces.learner import LearnerContext

__all__ = ["ExtraTreesLearner", "JointExtraTreesLearner", "JointRandomForestLearner", "RandomForestLearner", "soften"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
MOST_ROWS = 100_000
MOST_CELLS = 100_000_000
"""Of more training rows, or rows with more cells in all, a random sample is used."""
LEAVES = (1, 3)
"""Rows that a leaf may need at least; one of them is chosen on held-out rows, unless the bounds ask for more."""
_CHOOSING_TREES = 40
_FILLING_TREES = 50
_MOST_OUTPUTS = 2000


def soften(values: Array, shares: Floats, num_rows: int) -> NDArray[np.float32]:
    """Return probabilities moved towards the classes' shares, as much as one row among ``num_rows`` weighs: trees grown to the
    end say 0 and 1 too easily."""
    weight = 1.0 / (num_rows + 1.0)
    return ((1.0 - weight) * values + weight * shares).astype(np.float32)


class ForestLearner(BlockLearner):
    """What forests have in common.

    Args:
        context: A table suite.
        num_trees: Trees of each forest, at least 1; with many rows fewer, but at least 100.
        max_features: Share of the columns that a split looks at, in (0, 1].

    Raises:
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
        ConfigError: If a setting is out of range.
    """

    kind: ClassVar[Kind] = "extra"
    has_own_models = True

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.6) -> None:
        super().__init__(context)
        if num_trees < 1 or not 0.0 < max_features <= 1.0:
            raise ConfigError(
                f"num_trees must be at least 1 and max_features in (0, 1]; got {num_trees} and {max_features}. "
                f"The defaults are 300 and {0.6 if self.kind == 'extra' else 0.5}."
            )
        self._num_trees, self._max_features = num_trees, max_features
        self._design = TableDesign.of_suite(context.suite)
        self._forests: dict[str, Forest] = {}

    def _sample(self, rows: Rows, name: str) -> Rows:
        most = int(min(MOST_ROWS, max(1000, MOST_CELLS // self._design.width)))
        if len(rows) <= most:
            return rows
        return np.sort(Seeds(self.context.seed).numpy(f"sample {name}").choice(rows, most, replace=False))

    def _shape(self, num_rows: int, num_outputs: int, num_forests: int, *, num_trees: int | None = None) -> ForestShape:
        columns = columns_looked_at(self._max_features, self._design.width)
        trees = self._num_trees if num_trees is None else num_trees
        return ForestShape.bounded(trees, num_rows, num_outputs, num_forests, num_columns=columns, kind=self.kind)

    def _grow(self, x: Array, y: Floats, shape: ForestShape, name: str) -> Forest:
        seed = Seeds(self.context.seed).integer(name)
        return grow_forest(self.kind, x, y, shape, max_features=self._max_features, seed=seed, threads=self.context.threads)

    def _chosen(self, rows: Rows, x: Array, y: Floats, shape: ForestShape, name: str) -> ForestShape:
        """Return a shape with the size of leaves that predicts held-out rows best."""
        sizes = [size for size in LEAVES if size >= shape.min_rows]
        if len(sizes) < 2:
            return shape
        errors = np.zeros(len(sizes))
        for fit, held in inner_folds(self.context.suite, rows, Seeds(self.context.seed).numpy(f"folds {name}"), folds=3):
            for place, size in enumerate(sizes):
                tried = replace(
                    shape,
                    num_trees=min(shape.num_trees, _CHOOSING_TREES),
                    min_rows=size,
                    tree_rows=min(shape.tree_rows, len(fit)),
                )
                found = self._grow(x[fit], y[fit], tried, f"choice {name}").predict(x[held])
                errors[place] += float(np.square(found - y[held]).sum())
        return replace(shape, min_rows=sizes[int(errors.argmin())])

    def _own_forest(self, index: int, block: LabelBlock, num_trees: int | None = None) -> tuple[Forest, ForestShape]:
        """Return a forest of one block, grown on the rows that have its label."""
        rows = self._sample(block.labelled(self.train_rows), f"block {index}")
        x, y = self._design.matrix(self.context.suite.inputs, rows), block.targets(rows)
        shape = self._shape(len(rows), block.width, len(self.blocks), num_trees=num_trees)
        if num_trees is None:
            shape = self._chosen(rows, x, y, shape, f"forest {index}")
        return self._grow(x, y, shape, f"forest {index}"), shape

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Grow a forest for each block."""
        state: State = {}
        shapes = []
        for index, block in enumerate(self.blocks):
            forest, shape = self._own_forest(index, block)
            if not block.is_number:
                known = len(block.labelled(self.train_rows))
                forest = forest.with_values(soften(forest.values, block.shares(self.train_rows), known))
            state |= forest.state(f"{index}.")
            shapes.append([shape.num_trees, shape.min_rows])
        return state, {"trees and rows of a leaf, by forest": shapes}

    def _forest(self, state: State, prefix: str) -> Forest:
        """Return a forest of the state; what it derives from its arrays is kept while the state is the same."""
        held = self._forests.get(prefix)
        if held is None or held.values is not state[prefix + "values"]:
            held = self._forests[prefix] = Forest.from_state(state, prefix)
        return held

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return means over the trees."""
        x = self._design.matrix(inputs, rows)
        return [self._forest(state, f"{index}.").predict(x) for index in range(len(self.blocks))]

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the forests to a graph."""
        features = self._design.graph(graph)
        return [self._forest(state, f"{index}.").graph(graph, features) for index in range(len(self.blocks))]


class ExtraTreesLearner(ForestLearner):
    """Extra trees, a forest for each target: splits with random thresholds, strong on small tables."""

    words = "extra trees"
    slug = "extra-trees"


class RandomForestLearner(ForestLearner):
    """A random forest for each target: best splits on rows drawn with replacement."""

    words = "random forest"
    slug = "random-forest"
    kind = "bagged"

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.5) -> None:
        super().__init__(context, num_trees=num_trees, max_features=max_features)


class JointExtraTreesLearner(ForestLearner):
    """One forest of extra trees for all targets: every split serves all of them.

    Numbers are standardised, and the classes of a target share the weight of one number. Rows with at least one label are used;
    a label that is missing there is first filled in by a forest of that target alone, grown on the rows that have it.
    """

    words = "shared extra trees"
    slug = "extra-trees-joint"

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.6) -> None:
        super().__init__(context, num_trees=num_trees, max_features=max_features)
        width = sum(block.width for block in self.blocks)
        if width > _MOST_OUTPUTS:
            raise DataError(
                f"A forest for all targets holds at most {_MOST_OUTPUTS} numbers and classes in each leaf; the tasks have {width}. "
                f"Use the plan {self.slug.removesuffix('-joint')}."
            )

    def fit(self) -> tuple[State, dict[str, Any]]:
        """Fill in missing labels, then grow the forest of all."""
        train = self.train_rows
        has_any = np.any([block.known[train] for block in self.blocks], axis=0)
        rows = self._sample(train[has_any], "all")
        x = self._design.matrix(self.context.suite.inputs, rows)
        targets = [self._filled(index, block, rows, x) for index, block in enumerate(self.blocks)]
        spreads = [_spread(target) for target in targets]
        shape = self._shape(len(rows), sum(block.width for block in self.blocks), 1)
        y = np.concatenate([target / spread for target, spread in zip(targets, spreads, strict=True)], axis=1)
        shape = self._chosen(rows, x, y, shape, "forest of all")
        forest = self._grow(x, y, shape, "forest of all")
        parts = []
        for block, spread, part in zip(self.blocks, spreads, self._split(forest.values), strict=True):
            values = spread * part
            known = len(block.labelled(train))
            parts.append(values if block.is_number else soften(values, block.shares(train), known))
        forest = forest.with_values(np.concatenate(parts, axis=1).astype(np.float32))
        return forest.state("all."), {"trees and rows of a leaf": [shape.num_trees, shape.min_rows]}

    def _filled(self, index: int, block: LabelBlock, rows: Rows, x: Array) -> Floats:
        target = block.targets(rows)
        missing = ~block.known[rows]
        if missing.any():
            target[missing] = self._own_forest(index, block, _FILLING_TREES)[0].predict(x[missing])
        return target

    def _split(self, values: Array) -> Sequence[Array]:
        """Return the columns of each block."""
        return np.split(values, np.cumsum([block.width for block in self.blocks])[:-1], axis=1)

    def scores(self, state: State, inputs: Mapping[str, Array], rows: Rows) -> list[Array]:
        """Return means over the trees."""
        return list(self._split(self._forest(state, "all.").predict(self._design.matrix(inputs, rows))))

    def graph_scores(self, graph: GraphBuilder, state: State) -> list[str]:
        """Add the forest to a graph."""
        found = self._forest(state, "all.").graph(graph, self._design.graph(graph))
        ends = np.cumsum([block.width for block in self.blocks])
        return [
            graph.add("Gather", found, np.arange(end - block.width, end), axis=1)
            for end, block in zip(ends, self.blocks, strict=True)
        ]


class JointRandomForestLearner(JointExtraTreesLearner):
    """One random forest for all targets: best splits, for all targets together, on rows drawn with replacement.

    Numbers, classes and missing labels are treated as :class:`JointExtraTreesLearner` does.
    """

    words = "shared random forest"
    slug = "random-forest-joint"
    kind = "bagged"

    def __init__(self, context: LearnerContext, *, num_trees: int = 300, max_features: float = 0.5) -> None:
        super().__init__(context, num_trees=num_trees, max_features=max_features)


def _spread(target: Floats) -> float:
    """Return by what a target is divided so that its columns have a variance of 1 together; 1 if they never change."""
    variance = float(target.var(axis=0).sum())
    return float(np.sqrt(variance)) if variance > 1e-12 else 1.0
