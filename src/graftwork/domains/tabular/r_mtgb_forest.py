"""The trees of R-MTGB: three kinds of functions, the tasks' weights, what they predict, and all of it as arrays. How they grow:
:mod:`graftwork.domains.tabular.r_mtgb`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.domains.tabular.regression_tree import Floats, Tree

__all__ = ["Blocks", "RobustForest", "sigmoid"]

Array = NDArray[Any]
_LISTS = ("meta", "outside", "inside", "own")


def sigmoid(values: Floats) -> Floats:
    """Return ``1 / (1 + exp(-values))`` without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * values))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Iterations of the three blocks; ``Blocks(n, 0, 0)`` is pooled boosting, ``Blocks(0, 0, n)`` single-task, ``n2 = 0`` is
    MTGB."""

    shared: int
    robust: int
    specific: int

    def __post_init__(self) -> None:
        if min(self.shared, self.robust, self.specific) < 0 or self.total < 1:
            raise ConfigError(f"The blocks need iterations of at least 0, and one in total; got {self}.")

    @property
    def total(self) -> int:
        """All iterations."""
        return self.shared + self.robust + self.specific


@dataclass
class RobustForest:
    """The grown trees, and what they predict."""

    num_tasks: int
    num_outputs: int
    blocks: Blocks
    learning_rate: float
    meta: list[Tree] = field(default_factory=list)
    outside: list[Tree] = field(default_factory=list)
    inside: list[Tree] = field(default_factory=list)
    own: list[Tree] = field(default_factory=list)
    """Task by task within an iteration: tree ``i`` belongs to task ``i % T``."""
    thetas: list[Floats] = field(default_factory=list)
    """``theta`` ``[T]`` before block 2 and after each of its iterations."""

    @property
    def iterations(self) -> int:
        """Finished iterations."""
        return len(self.meta) + len(self.outside) + len(self.own) // self.num_tasks

    def sizes(self, iterations: int | None = None) -> tuple[int, int, int]:
        """Return how many of the first ``iterations`` (None: all) fall into each block."""
        asked = self.iterations if iterations is None else min(iterations, self.iterations)
        first = min(asked, self.blocks.shared)
        second = min(asked - first, self.blocks.robust)
        return first, second, asked - first - second

    def weights(self, iterations: int | None = None) -> Floats:
        """Return ``s_r`` ``[T]``."""
        # Entry k is theta after k iterations of block 2; the first one is from before.
        return sigmoid(self.thetas[self.sizes(iterations)[1]])

    def parts(self, iterations: int | None = None) -> dict[str, list[Tree]]:
        """Return the trees of the first iterations by list name."""
        first, second, third = self.sizes(iterations)
        return {
            "meta": self.meta[:first],
            "outside": self.outside[:second],
            "inside": self.inside[:second],
            "own": self.own[: third * self.num_tasks],
        }

    def raw(self, x: Array, task: Array, iterations: int | None = None) -> Floats:
        """Return ``F`` ``[C, N]`` for rows ``[N, F]`` and their tasks ``[N]``."""
        parts = self.parts(iterations)
        base, out, inner = (self._sum(parts[name], x) for name in _LISTS[:3])
        share = self.weights(iterations)[task]
        total = base + (1.0 - share) * inner + share * out
        for number in np.unique(task) if parts["own"] else ():
            rows = np.flatnonzero(task == number)
            # Every T-th tree, from the task's number on, is its own.
            total[:, rows] += self._sum(parts["own"][number :: self.num_tasks], x[rows])
        return total

    def raw_of_all(self, x: Array, iterations: int | None = None) -> Floats:
        """Return ``F`` ``[T, C, N]`` of every task for every row; common trees are walked once."""
        parts = self.parts(iterations)
        base, out, inner = (self._sum(parts[name], x) for name in _LISTS[:3])
        return np.stack(
            [
                base + (1.0 - share) * inner + share * out + self._sum(parts["own"][number :: self.num_tasks], x)
                for number, share in enumerate(self.weights(iterations))
            ]
        )

    def _sum(self, trees: list[Tree], x: Array) -> Floats:
        total = np.zeros((self.num_outputs, len(x)))
        for tree in trees:
            total += self.learning_rate * tree.predict(x)
        return total

    def to_arrays(self) -> dict[str, Array]:
        """Return all state as arrays, one set of node arrays for all trees, tree after tree."""
        trees = [tree for name in _LISTS for tree in getattr(self, name)]
        empty = {"feature": np.int32, "threshold": np.float64, "left": np.int32, "right": np.int32}
        arrays: dict[str, Array] = {
            name: np.concatenate([getattr(tree, name) for tree in trees]) if trees else np.zeros(0, dtype)
            for name, dtype in empty.items()
        }
        arrays["value"] = np.concatenate([tree.value for tree in trees]) if trees else np.zeros((0, self.num_outputs))
        arrays["nodes"] = np.array([len(tree.feature) for tree in trees], dtype=np.int64)
        arrays["lists"] = np.array([len(getattr(self, name)) for name in _LISTS], dtype=np.int64)
        arrays["thetas"] = np.stack(self.thetas)
        return arrays

    def fill(self, arrays: Mapping[str, Array]) -> None:
        """Take the state of :meth:`to_arrays` into this forest.

        Raises:
            DataError: If it is of another number of tasks or outputs.
        """
        if arrays["thetas"].shape[1] != self.num_tasks or arrays["value"].shape[1] != self.num_outputs:
            raise DataError(
                f"The stored trees are for {arrays['thetas'].shape[1]} tasks and {arrays['value'].shape[1]} outputs, "
                f"not for {self.num_tasks} and {self.num_outputs}."
            )
        # All trees lie one after the other; the numbers of nodes say where each ends.
        ends = np.cumsum(arrays["nodes"])
        names = ("feature", "threshold", "left", "right", "value")
        trees = [
            Tree(*(arrays[name][end - size : end] for name in names)) for end, size in zip(ends, arrays["nodes"], strict=True)
        ]
        stops = np.cumsum(arrays["lists"])
        for name, stop, size in zip(_LISTS, stops, arrays["lists"], strict=True):
            setattr(self, name, trees[stop - size : stop])
        self.thetas = list(arrays["thetas"])
