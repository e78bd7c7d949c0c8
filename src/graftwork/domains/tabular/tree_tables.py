"""What boosted trees without category sets see of a suite's table, and how their trees go back to the suite's columns for
export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.lightgbm import design_matrix
from graftwork.domains.tabular.regression_tree import Tree

__all__ = ["IndicatorTable", "dump_constant", "dump_tree"]

Array = NDArray[Any]
_MOST_LEVELS = 33
"""Columns with more codes stay numbers; codes are ordered by frequency, so that thresholds part common levels from rare ones."""


class IndicatorTable:
    """Numbers as they are, and a 0/1 column for each level of a category with few levels.

    Args:
        suite: A table suite.
    """

    def __init__(self, suite: Suite) -> None:
        numeric = suite.inputs["numeric"].shape[1] if "numeric" in suite.inputs else 0
        codes = suite.inputs["categorical"].shape[1] if "categorical" in suite.inputs else 0
        sizes = list(suite.only_input.sizes["cardinalities"])[:codes]
        self.columns: list[tuple[int, int | None]] = [(column, None) for column in range(numeric)]
        """For each column that the trees see: column of the design matrix, and the level it indicates (None: the value
        itself)."""
        for number, size in enumerate(sizes):
            column = numeric + number
            self.columns += [(column, level) for level in range(size)] if size <= _MOST_LEVELS else [(column, None)]

    def matrix(self, inputs: Mapping[str, Array], rows: NDArray[np.int64] | slice = slice(None)) -> NDArray[np.float32]:
        """Return float32 ``[N, columns]``."""
        design = design_matrix(inputs, rows)
        found = np.empty((len(design), len(self.columns)), dtype=np.float32)
        for place, (column, level) in enumerate(self.columns):
            # Codes are whole numbers that float32 holds exactly, so == is safe.
            found[:, place] = design[:, column] if level is None else design[:, column] == level
        return found


def dump_tree(tree: Tree, weights: Array, table: IndicatorTable) -> dict[str, Any]:
    """Return one output of a tree as LightGBM dumps its trees, over the columns of the design matrix.

    Args:
        tree: A grown tree.
        weights: Value of each node ``[nodes]``; leaves' count.
        table: Where the columns come from.
    """

    def walk(node: int) -> dict[str, Any]:
        left, right = int(tree.left[node]), int(tree.right[node])
        if left == node:
            return {"leaf_value": float(weights[node])}
        column, level = table.columns[int(tree.feature[node])]
        split = {"split_index": node, "split_feature": column}
        if level is None:
            threshold = float(tree.threshold[node])
            return {**split, "decision_type": "<=", "threshold": threshold, "left_child": walk(left), "right_child": walk(right)}
        # the level goes left there, and right here, where its indicator is 1
        return {**split, "decision_type": "==", "threshold": str(level), "left_child": walk(right), "right_child": walk(left)}

    return {"tree_structure": walk(0)}


def dump_constant(value: float) -> dict[str, Any]:
    """Return a tree that is one value."""
    return {"tree_structure": {"leaf_value": float(value)}}
