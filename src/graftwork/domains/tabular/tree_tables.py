"""What boosted trees without category sets see of a suite's table, and how their trees go back to the suite's columns for
export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.data.suite import Suite
from graftwork.domains.tabular.boosted_learner import design_matrix
from graftwork.domains.tabular.regression_tree import Tree

__all__ = ["IndicatorTable", "dump_constant", "dump_split", "dump_tree"]

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
        return dump_split(table, int(tree.feature[node]), float(tree.threshold[node]), walk(left), walk(right), node)

    return {"tree_structure": walk(0)}


def dump_split(
    table: IndicatorTable, feature: int, threshold: float, low: Mapping[str, Any], high: Mapping[str, Any], index: int = 0
) -> dict[str, Any]:
    """Return a split as LightGBM dumps it, over the columns of the design matrix.

    Args:
        table: Where the columns come from.
        feature: Column of the table.
        threshold: Values up to it go to ``low``; of an indicator it is between 0 and 1.
        low: The part below the threshold.
        high: The part above it.
        index: Number of the node in its tree.
    """
    column, level = table.columns[feature]
    split = {"split_index": index, "split_feature": column}
    if level is None:
        return {**split, "decision_type": "<=", "threshold": threshold, "left_child": low, "right_child": high}
    # the level goes left there, and right here, where its indicator is 1
    return {**split, "decision_type": "==", "threshold": str(level), "left_child": high, "right_child": low}


def dump_constant(value: float) -> dict[str, Any]:
    """Return a tree that is one value."""
    return {"tree_structure": {"leaf_value": float(value)}}
