"""A grown regression tree as arrays, several outputs per leaf, and the limits of its growth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["Floats", "Tree", "TreeShape"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TreeShape:
    """How large a tree may grow.

    Raises:
        ConfigError: If a limit is out of range.
    """

    max_leaf_nodes: int | None = 2
    """At least 2; None for no limit."""
    max_depth: int | None = 3
    """At least 1; None for no limit."""
    min_samples_leaf: int = 1
    """At least 1."""
    max_bins: int = 255
    """Intervals of a column, from 2 to 65535."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be {allowed}; got {value!r}"
            for name, value, low, high, allowed in (
                ("max_leaf_nodes", self.max_leaf_nodes, 2, None, "at least 2, or None"),
                ("max_depth", self.max_depth, 1, None, "at least 1, or None"),
                ("min_samples_leaf", self.min_samples_leaf, 1, None, "at least 1"),
                ("max_bins", self.max_bins, 2, 65_535, "from 2 to 65535"),
            )
            if value is not None and not (low <= value and (high is None or value <= high))
        ]
        if problems:
            raise ConfigError("The shape of the trees is out of range.", problems)


@dataclass(frozen=True, slots=True)
class Tree:
    """A grown tree; node 0 is the root, and a leaf is its own child, so that walking on changes nothing."""

    feature: NDArray[np.int32]
    """Column of each node ``[nodes]``; 0 in leaves."""
    threshold: Floats
    """Rows with ``x <= threshold`` go left; infinity in leaves."""
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: Floats
    """Mean target ``[nodes, C]``; that of inner nodes is not used."""

    @property
    def depth(self) -> int:
        """Number of splits on the longest way down."""
        depths = np.zeros(len(self.feature), dtype=np.int64)
        for node in range(len(self.feature)):  # children come after their parent
            if self.left[node] != node:
                depths[self.left[node]] = depths[self.right[node]] = depths[node] + 1
        return int(depths.max())

    def predict(self, x: Array) -> Floats:
        """Return ``[C, N]`` for rows ``[N, F]``."""
        # A root that is its own child: the tree is one leaf.
        if self.left[0] == 0:
            return np.repeat(self.value[0][:, None], len(x), axis=1)
        node = np.where(x[:, self.feature[0]] <= self.threshold[0], self.left[0], self.right[0])
        every = np.arange(len(x))
        # All rows take as many steps as the longest way has; those in a leaf stay where they are.
        for _ in range(self.depth - 1):
            goes_left = x[every, self.feature[node]] <= self.threshold[node]
            node = np.where(goes_left, self.left[node], self.right[node])
        return np.ascontiguousarray(self.value.T[:, node])
