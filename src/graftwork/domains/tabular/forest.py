"""A forest as arrays: grown by scikit-learn, read by NumPy and by one ONNX operator.

Every leaf holds the mean of all outputs over its rows. Classes are learned as columns of 0 and 1: the squared error summed over
them is the Gini impurity, so that trees split as classification trees do, and numbers and classes can share trees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.domains.tabular.suite_graph import GraphBuilder

__all__ = ["Forest", "ForestShape", "Kind", "columns_looked_at", "grow_forest"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Kind = Literal["extra", "bagged"]
MOST_NODES = 2_000_000
"""Most nodes of all forests of a model."""
MOST_VALUES = 8_000_000
"""Most numbers in the leaves of all forests of a model."""
MOST_TREE_ROWS = 20_000
"""Most rows of a tree: of more it gets as many, drawn with replacement."""
MOST_COLUMNS = 100
"""Most columns that a split looks at, unless the square root of their number is larger."""
MOST_WORK = 4e8
"""Most comparisons of a row with a threshold, roughly, while all forests of a model are grown: some ten seconds."""
FEWEST_TREES = 50
_SEARCH = 3.0
"""How much longer it takes to search a threshold than to draw one."""
_LOOKED_UP = 2_000_000
"""Numbers that are looked up at a time."""
_LESS_OR_EQUAL = 0


@dataclass(frozen=True, slots=True)
class ForestShape:
    """How many trees, how many rows a leaf needs at least, and how many rows a tree gets."""

    num_trees: int
    min_rows: int
    tree_rows: int

    @classmethod
    def bounded(
        cls,
        num_trees: int,
        num_rows: int,
        num_outputs: int,
        num_forests: int,
        *,
        num_columns: int = 1,
        kind: Kind = "extra",
    ) -> Self:
        """Return a shape within the bounds of size and time: with many rows fewer trees (no fewer than 50), then larger leaves;
        where that does not suffice, fewer rows for each tree.

        Args:
            num_trees: Trees that are wanted.
            num_rows: Training rows of a forest.
            num_outputs: Numbers that each leaf holds.
            num_forests: Forests that share the bounds.
            num_columns: Columns that a split looks at.
            kind: As for :func:`grow_forest`.
        """
        fewest = min(FEWEST_TREES, num_trees)
        rows = max(1, min(num_rows, MOST_TREE_ROWS))
        one = num_columns * (1.0 + num_outputs / 4.0) * (_SEARCH if kind == "bagged" else 1.0) * math.log2(rows + 2)
        affordable = MOST_WORK / num_forests / one  # rows of all trees
        leaves = min(MOST_NODES / 2, MOST_VALUES / num_outputs) / num_forests
        trees = int(np.clip(min(affordable, 2 * leaves) // rows, fewest, num_trees))
        rows = int(np.clip(affordable // trees, min(rows, 100), rows))
        return cls(trees, max(1, math.ceil(trees * rows / leaves)), rows)


def columns_looked_at(share: float, width: int) -> int:
    """Return how many of ``width`` columns a split looks at, if it may look at a share of them."""
    return max(1, min(round(share * width), max(MOST_COLUMNS, math.isqrt(width))))


@dataclass(frozen=True, eq=False)  # without slots: what is derived is kept
class Forest:
    """Nodes of all trees, one tree behind the other; a leaf is its own child."""

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    """Left if the value is no larger."""
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    roots: NDArray[np.int32]
    values: NDArray[np.float32]
    """``[leaves, outputs]``, in the order of the leaves among the nodes."""

    @classmethod
    def from_state(cls, state: Mapping[str, Array], prefix: str) -> Self:
        """Read what :meth:`state` returned."""
        return cls(**{name: state[prefix + name] for name in ("feature", "threshold", "left", "right", "roots", "values")})

    def state(self, prefix: str) -> dict[str, Array]:
        """Return the arrays under names that begin with ``prefix``."""
        return {prefix + name: getattr(self, name) for name in ("feature", "threshold", "left", "right", "roots", "values")}

    @cached_property
    def is_leaf(self) -> NDArray[np.bool_]:
        """``[nodes]``: which are leaves."""
        return self.left == np.arange(len(self.left), dtype=np.int32)

    @cached_property
    def leaf_number(self) -> NDArray[np.int32]:
        """``[nodes]``: place of each leaf among the leaves; without meaning for other nodes."""
        return (np.cumsum(self.is_leaf, dtype=np.int32) - 1).astype(np.int32)

    def with_values(self, values: NDArray[np.float32]) -> Forest:
        """Return the same trees with other values in their leaves."""
        return replace(self, values=values)

    def leaves(self, x: Array) -> NDArray[np.int32]:
        """Return the leaf, counted among leaves, that each row ends in, ``[n, trees]``."""
        is_leaf = self.is_leaf
        num_trees = len(self.roots)
        node = np.tile(self.roots, len(x))
        active = np.flatnonzero(~is_leaf[node])
        while len(active):
            here = node[active]
            goes_left = x[active // num_trees, self.feature[here]] <= self.threshold[here]
            here = np.where(goes_left, self.left[here], self.right[here])
            node[active] = here
            active = active[~is_leaf[here]]
        return self.leaf_number[node].reshape(len(x), num_trees)

    def predict(self, x: Array) -> Floats:
        """Return the mean over trees, ``[n, outputs]``.

        Args:
            x: float32 ``[n, features]``.
        """
        size = max(1, _LOOKED_UP // (len(self.roots) * self.values.shape[1]))
        parts = [
            self.values[self.leaves(x[start : start + size])].mean(axis=1, dtype=np.float64)
            for start in range(0, max(len(x), 1), size)
        ]
        return np.concatenate(parts)

    def graph(self, graph: GraphBuilder, features: str) -> str:
        """Add the forest to a graph; return the name of double values ``[n, outputs]``.

        The operator returns the leaf of every tree, and their values are looked up and averaged: it has no leaves of several
        values.
        """
        is_leaf = self.is_leaf
        if is_leaf[self.roots].any():
            return self._with_split_roots().graph(graph, features)
        leaf, inner = self.leaf_number, np.cumsum(~is_leaf) - 1
        splits = np.flatnonzero(~is_leaf)

        def children(side: Array) -> tuple[list[int], list[int]]:
            child = side[splits]
            return np.where(is_leaf[child], leaf[child], inner[child]).tolist(), is_leaf[child].astype(np.int64).tolist()

        (true_ids, true_leaves), (false_ids, false_leaves) = children(self.left), children(self.right)
        tree = np.searchsorted(self.roots, np.flatnonzero(is_leaf), side="right") - 1
        found = graph.add(
            "TreeEnsemble",
            features,
            domain="ai.onnx.ml",
            n_targets=len(self.roots),
            aggregate_function=1,
            post_transform=0,
            tree_roots=inner[self.roots].tolist(),
            nodes_featureids=self.feature[splits].tolist(),
            nodes_modes=graph.tensor(np.full(len(splits), _LESS_OR_EQUAL, dtype=np.uint8)),
            nodes_splits=graph.tensor(self.threshold[splits]),
            nodes_truenodeids=true_ids,
            nodes_trueleafs=true_leaves,
            nodes_falsenodeids=false_ids,
            nodes_falseleafs=false_leaves,
            leaf_targetids=tree.tolist(),
            leaf_weights=graph.tensor(np.arange(len(tree), dtype=np.float32)),  # exact: far below 2 ** 24
        )
        values = graph.add("Gather", self.values, graph.cast(found, np.int64), axis=0)
        # Averaged as doubles, as above: trees that are grown on these means would otherwise turn at other thresholds.
        return graph.add("ReduceMean", graph.cast(values, np.float64), np.array([1], dtype=np.int64), keepdims=0)

    def _with_split_roots(self) -> Forest:
        """Return the forest with a split that changes nothing above each root that is a leaf: the operator wants a split."""
        parts: list[dict[str, Array]] = []
        is_leaf, bounds, offset, first_leaf = self.is_leaf, [*self.roots.tolist(), len(self.left)], 0, 0
        for start, stop in pairwise(bounds):
            nodes, leaves = slice(start, stop), int(is_leaf[start:stop].sum())
            values = self.values[first_leaf : first_leaf + leaves]
            first_leaf += leaves
            if is_leaf[start]:
                part = {
                    "feature": np.zeros(3, np.int32),
                    "threshold": np.zeros(3, np.float32),
                    "left": np.array([1, 1, 2], np.int32) + np.int32(offset),
                    "right": np.array([2, 1, 2], np.int32) + np.int32(offset),
                    "values": np.repeat(values, 2, axis=0),
                }
            else:
                move = np.int32(offset - start)
                part = {"feature": self.feature[nodes], "threshold": self.threshold[nodes], "values": values}
                part |= {"left": self.left[nodes] + move, "right": self.right[nodes] + move}
            parts.append({**part, "roots": np.array([offset], np.int32)})
            offset += len(part["feature"])
        return Forest(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def grow_forest(kind: Kind, x: Array, y: Floats, shape: ForestShape, *, max_features: float, seed: int, threads: int) -> Forest:
    """Grow a forest; the seed alone decides, not the number of threads.

    Args:
        kind: ``extra`` draws thresholds and sees all rows (up to the rows of a tree), ``bagged`` searches them on rows drawn
            with replacement.
        x: float32 ``[n, features]``, finite.
        y: ``[n, outputs]``, finite.
        shape: Trees and leaves.
        max_features: Share of the columns that a split looks at, in (0, 1].
        seed: At least 0.
        threads: Threads that grow trees.

    Raises:
        DataError: If the inputs hold NaN or infinite numbers.
    """
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor

    if not np.isfinite(x).all():
        raise DataError("The inputs hold NaN or infinite numbers. Encode the table with the suite's encoder, which has none.")
    grower: Any = ExtraTreesRegressor if kind == "extra" else RandomForestRegressor
    model = grower(
        shape.num_trees,
        max_features=columns_looked_at(max_features, x.shape[1]),
        min_samples_leaf=shape.min_rows,
        bootstrap=kind == "bagged" or shape.tree_rows < len(x),
        max_samples=shape.tree_rows if shape.tree_rows < len(x) else None,
        random_state=seed % 2**31,
        n_jobs=max(1, threads),
    )
    model.fit(x, y if y.shape[1] > 1 else y[:, 0])
    parts: list[dict[str, Array]] = []
    offset = 0
    for tree in (estimator.tree_ for estimator in model.estimators_):
        number = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        parts.append(
            {
                "feature": np.where(leaf, 0, tree.feature).astype(np.int32),
                "threshold": _rounded_down(np.where(leaf, 0.0, tree.threshold)),
                "left": (np.where(leaf, number, tree.children_left) + offset).astype(np.int32),
                "right": (np.where(leaf, number, tree.children_right) + offset).astype(np.int32),
                "roots": np.array([offset], dtype=np.int32),
                "values": tree.value[leaf][:, :, 0].astype(np.float32),
            }
        )
        offset += tree.node_count
    return Forest(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _rounded_down(thresholds: Floats) -> NDArray[np.float32]:
    """Return float32 numbers that decide for float32 inputs as the thresholds do."""
    found = thresholds.astype(np.float32)
    return np.where(found.astype(np.float64) <= thresholds, found, np.nextafter(found, np.float32(-np.inf)))
