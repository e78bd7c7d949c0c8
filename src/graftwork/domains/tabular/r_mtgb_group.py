"""One ensemble of R-MTGB over several targets of a suite: stacked rows, validation after every iteration, state, trees for
export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import TaskSpec
from graftwork.domains.tabular.r_mtgb import Loss, RobustBoosting
from graftwork.domains.tabular.r_mtgb_forest import Blocks, RobustForest, sigmoid
from graftwork.domains.tabular.regression_tree import Floats, Tree, TreeShape
from graftwork.domains.tabular.tree_tables import IndicatorTable, dump_constant, dump_tree

__all__ = ["Member", "TaskGroup"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Member:
    """A target that is boosted: a task, or one column of it."""

    task: TaskSpec
    values: Array
    """``[N]``, NaN where unknown."""
    key: tuple[str, ...]
    """Loss, and what else members of one group have in common."""
    column: int = 0

    @property
    def units(self) -> tuple[float, float]:
        """Center and scale of a regression value; 0 and 1 otherwise."""
        return (self.task.center[self.column], self.task.scale[self.column]) if self.task.center else (0.0, 1.0)


@dataclass
class _Follower:
    """Sums of the trees' outputs for some rows, kept up with a growing forest, tree by tree in the order in which they grew."""

    forest: RobustForest
    x: Array
    task: Array
    seen: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def __post_init__(self) -> None:
        shape = (4, self.forest.num_outputs, len(self.x))
        self._sums = np.zeros(shape)
        self._rows = [np.flatnonzero(self.task == number) for number in range(self.forest.num_tasks)]

    def raw(self) -> Floats:
        """Add what is new; return ``F`` ``[C, N]``."""
        forest = self.forest
        for place, trees in enumerate((forest.meta, forest.outside, forest.inside, forest.own)):
            for number in range(self.seen[place], len(trees)):
                rows = self._rows[number % forest.num_tasks] if place == 3 else slice(None)
                self._sums[place][:, rows] += forest.learning_rate * trees[number].predict(self.x[rows])
            self.seen[place] = len(trees)
        base, out, inner, own = self._sums
        share = forest.weights()[self.task]
        # Kept apart until here: the shares change with every iteration of block 2, the sums of trees do not.
        return base + (1.0 - share) * inner + share * out + own


@dataclass
class _TaskTrees:
    """A member's trees, in the form that the ONNX writer takes."""

    objective: str
    num_classes: int
    dumped: list[dict[str, Any]]

    def trees(self) -> list[dict[str, Any]]:
        return self.dumped


class TaskGroup:
    """An ensemble over some members of equal key.

    Args:
        members: The targets; each needs a labelled training row.
        x: All rows of the suite ``[N, F]``.
        train: Training rows.
        val: Validation rows; may be empty.
        blocks: Iterations.
        learning_rate: ``nu``.
        shape: Limits of the trees.
        patience: Iterations of the last block without a better validation loss after which the group is done.
        seed: Of the ensemble.

    Raises:
        DataError: If a member has no labelled training row.
    """

    def __init__(
        self,
        members: Sequence[Member],
        x: Array,
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        *,
        blocks: Blocks,
        learning_rate: float,
        shape: TreeShape,
        patience: int,
        seed: int,
    ) -> None:
        self.members, self.blocks, self._patience = tuple(members), blocks, patience
        self._loss = cast(Loss, members[0].key[0])
        self._classes = int(members[0].key[1]) if self._loss == "softmax" else 2
        rows, task, y = self._stack(train)
        for number, member in enumerate(members):
            if not (task == number).any():
                raise DataError(f"Task {member.task.name!r} has no labelled training row.")
        self.boosting = RobustBoosting(
            x[rows],
            y,
            task,
            num_tasks=len(members),
            loss=self._loss,
            num_classes=self._classes,
            blocks=blocks,
            learning_rate=learning_rate,
            shape=shape,
            seed=seed,
        )
        val_rows, self._val_task, self._val_y = self._stack(val)
        self._follower = _Follower(self.boosting.forest, x[val_rows], self._val_task)
        self.best_loss, self.best_iterations = float("inf"), 0

    def _stack(self, rows: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Return row numbers, task numbers and targets of the labelled rows, target after target."""
        found = [rows[~np.isnan(member.values[rows])] for member in self.members]
        values = []
        for member, own in zip(self.members, found, strict=True):
            center, scale = member.units
            values.append((member.values[own].astype(np.float64) - center) / scale)
        y = np.concatenate(values)
        task = np.repeat(np.arange(len(found)), [len(own) for own in found])
        return np.concatenate(found), task, y if self._loss == "squared_error" else y.astype(np.int64)

    @property
    def is_done(self) -> bool:
        """Whether all iterations are finished, or those of the last block have not helped for a while."""
        forest = self.boosting.forest
        own = forest.sizes()[2]
        # Only the last block can stop early: before it no task has trees of its own.
        return self.boosting.is_done or (own > 0 and min(own, forest.iterations - self.best_iterations) >= self._patience)

    def advance_to(self, iterations: int) -> None:
        """Boost until so many iterations are finished or the group is done."""
        forest = self.boosting.forest
        while forest.iterations < iterations and not self.is_done:
            self.boosting.advance()
            loss = self._validation_loss() if len(self._val_y) else -float(forest.iterations)
            if loss < self.best_loss:
                self.best_loss, self.best_iterations = loss, forest.iterations

    def _validation_loss(self) -> float:
        """Return the mean over tasks of the mean loss of their validation rows."""
        raw, y = self._follower.raw(), self._val_y
        if self._loss == "squared_error":
            losses = (raw[0] - y) ** 2
        elif self._loss == "binary":
            losses = np.logaddexp(0.0, np.where(y > 0, -2.0, 2.0) * raw[0])
        else:
            losses = np.logaddexp.reduce(raw, axis=0) - np.take_along_axis(raw, y[None], axis=0)[0]
        # Tasks without a validation row have no mean.
        counts = np.bincount(self._val_task)
        sums = np.bincount(self._val_task, weights=losses)
        return float(np.mean(sums[counts > 0] / counts[counts > 0]))

    def predict(self, x: Array) -> list[Array]:
        """Return each member's values or probabilities ``[N, 1]``, or ``[N, C]`` for more classes, from the best iterations."""
        raw = self.boosting.forest.raw_of_all(x, self.best_iterations)
        if self._loss == "softmax":
            shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
            return list((shifted / shifted.sum(axis=1, keepdims=True)).transpose(0, 2, 1))
        if self._loss == "binary":
            return list(sigmoid(2.0 * raw).transpose(0, 2, 1))
        return [member.units[0] + member.units[1] * found.T for member, found in zip(self.members, raw, strict=True)]

    def task_weights(self) -> list[float]:
        """Return ``s_r`` of each member at the best iteration."""
        return [float(share) for share in self.boosting.forest.weights(self.best_iterations)]

    def arrays(self) -> dict[str, Array]:
        """Return the trees as arrays."""
        return self.boosting.forest.to_arrays()

    def state(self) -> dict[str, Any]:
        """Return JSON values that :meth:`restore` takes beside the arrays."""
        return {"best_iterations": self.best_iterations, "best_loss": self.best_loss if self.best_iterations else None}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Go back to a stored state."""
        self.best_iterations = int(state["best_iterations"])
        self.best_loss = float("inf") if state["best_loss"] is None else float(state["best_loss"])
        self.boosting.resume(arrays)
        # Anew: it adds up all trees at the next validation.
        self._follower = _Follower(self.boosting.forest, self._follower.x, self._val_task)

    def count_numbers(self) -> int:
        """Return how many numbers the best iterations need."""
        forest = self.boosting.forest
        trees = [tree for part in forest.parts(self.best_iterations).values() for tree in part]
        # A binary tree of n leaves has 2 n - 1 nodes.
        leaves = sum((len(tree.feature) + 1) // 2 for tree in trees)
        return 2 * (leaves - len(trees)) + leaves * forest.num_outputs + (forest.num_tasks if forest.num_tasks > 1 else 0)

    def dumps(self, table: IndicatorTable) -> list[_TaskTrees]:
        """Return each member's trees, its weights multiplied in, for the ONNX writer."""
        forest = self.boosting.forest
        parts, shares = forest.parts(self.best_iterations), self.task_weights()
        found = []
        for number, (member, share) in enumerate(zip(self.members, shares, strict=True)):
            own = parts["own"][number :: forest.num_tasks]
            weighted = [(tree, 1.0) for tree in parts["meta"]] + [(tree, share) for tree in parts["outside"]]
            weighted += [(tree, 1.0 - share) for tree in parts["inside"]] + [(tree, 1.0) for tree in own]
            found.append(self._dump(member, weighted, table))
        return found

    def _dump(self, member: Member, weighted: list[tuple[Tree, float]], table: IndicatorTable) -> _TaskTrees:
        center, scale = member.units
        # Into the leaves: the exported sum is the answer itself. Two classes' log odds are 2 F.
        factor = self.boosting.forest.learning_rate * (2.0 if self._loss == "binary" else scale)
        outputs = self.boosting.forest.num_outputs
        dumped = [
            dump_tree(tree, factor * weight * tree.value[:, output], table)
            for tree, weight in weighted
            for output in range(outputs)
        ]
        kinds: dict[str, Literal["regression", "binary", "multiclass"]]
        kinds = {"squared_error": "regression", "binary": "binary", "softmax": "multiclass"}
        if self._loss == "squared_error":
            dumped.append(dump_constant(center))  # last, so that small numbers meet small ones before
        return _TaskTrees(kinds[self._loss], outputs, dumped)
