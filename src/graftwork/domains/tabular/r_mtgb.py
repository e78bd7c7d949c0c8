"""R-MTGB: gradient boosting over many tasks that finds tasks unlike the rest and keeps them from harming the others.

"Robust-Multi-Task Gradient Boosting", 2025, https://github.com/GAA-UAM/R-MTGB. A row ``x`` of task ``r`` is predicted as

    ``F_r(x) = F_meta(x) + (1 - s_r) F_in(x) + s_r F_out(x) + F_r^spec(x)``,  ``s_r = sigmoid(theta_r)``,

from trees fitted to negative gradients ``g`` of half the squared error or of cross-entropy, in three blocks one after the other
(learning rate ``nu``):

1. ``n1`` iterations, a tree over all tasks: ``F_meta += nu * tree(g)``.
2. ``n2`` iterations, two competing functions, both fitted at the same ``F``: ``F_out += nu * tree(s_r g)``, ``F_in += nu *
   tree((1 - s_r) g)``; then ``theta_r += nu * s_r (1 - s_r) * sum over the rows of r of g (F_out - F_in)``, with ``g`` and both
   functions from before the iteration.
3. ``n3`` iterations, a tree per task on its own rows: ``F_r^spec += nu * tree(g)``.

``F`` starts at 0, ``theta`` at ``0.1 * N(0, 1)``; leaves hold mean gradients. The sum in step 2 is no mean: with many rows
``s_r`` saturates in a few
iterations. Released form and default: two leaves a tree. Here trees are binned, at most 255 bins a
column (thresholds are cuts of the whole table, see :mod:`graftwork.domains.tabular.histogram_trees`), and row subsampling draws
afresh in each iteration (the released code multiplies its masks). Two classes have opposite gradients, so one column stands for
both: the same trees at half the cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.domains.tabular.histogram_trees import Rows, TreeGrower
from graftwork.domains.tabular.r_mtgb_forest import Blocks, RobustForest, sigmoid
from graftwork.domains.tabular.regression_tree import Floats, TreeShape

__all__ = ["Loss", "RobustBoosting"]

Array = NDArray[Any]
Loss = Literal["squared_error", "binary", "softmax"]


class RobustBoosting:
    """Grows a :class:`RobustForest` iteration by iteration; ``advance`` any number of times, stop and go on as you like.

    Args:
        x: Features ``[N, F]``, float32, finite, without the task.
        y: ``[N]`` values or class numbers, or ``[N, C]`` values.
        task: Task number of each row ``[N]``, from 0.
        num_tasks: ``T``; every task has a row.
        loss: ``squared_error``, ``binary`` (``y`` 0 or 1) or ``softmax``.
        num_classes: Of ``softmax``.
        blocks: Iterations of the three blocks.
        learning_rate: ``nu``, above 0.
        shape: Limits of the trees.
        subsample: Share of the rows that a tree sees, in (0, 1].
        seed: Draws ``theta`` and the samples of rows.

    Raises:
        ConfigError: If a setting is out of range.
        DataError: If a task has no row.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        task: Array,
        *,
        num_tasks: int,
        loss: Loss,
        blocks: Blocks,
        num_classes: int = 2,
        learning_rate: float = 0.1,
        shape: TreeShape | None = None,
        subsample: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not learning_rate > 0:
            raise ConfigError(f"`learning_rate` must be above 0; got {learning_rate}.")
        if not 0 < subsample <= 1:
            raise ConfigError(f"`subsample` must be in (0, 1]; got {subsample}.")
        sizes = np.bincount(task, minlength=num_tasks)
        if len(sizes) != num_tasks or not sizes.all():
            raise DataError(f"Every one of the {num_tasks} tasks needs a row; rows per task: {sizes.tolist()}.")
        self._loss, self._subsample, self._seed = loss, subsample, seed
        self._order = np.argsort(task, kind="stable")  # rows of a task lie together from here on
        self._x = np.ascontiguousarray(x[self._order], dtype=np.float32)
        self._y = _targets(np.asarray(y)[self._order], loss, num_classes)
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._slices = [slice(int(start), int(start + size)) for start, size in zip(self._starts, sizes, strict=True)]
        self._grower = TreeGrower(self._x, sizes.tolist(), shape or TreeShape())
        self.forest = RobustForest(num_tasks, len(self._y), blocks, learning_rate)
        # Random: with theta = 0 both functions would get the same trees, and no slope could ever part them.
        self.forest.thetas = [0.1 * np.random.default_rng([seed % 2**63, 0]).normal(size=num_tasks)]
        self._reset()

    def _reset(self) -> None:
        shape = self._y.shape
        self._raw, self._base = np.zeros(shape), np.zeros(shape)
        self._outside, self._inside = np.zeros(shape), np.zeros(shape)

    @property
    def is_done(self) -> bool:
        """Whether all iterations of all blocks are finished."""
        return self.forest.iterations >= self.forest.blocks.total

    def training_outputs(self) -> Floats:
        """Return the current ``F`` ``[C, N]`` of the training rows, in the order in which they came."""
        found = np.empty_like(self._raw)
        found[:, self._order] = self._raw
        return found

    def advance(self) -> None:
        """Do one iteration of the block whose turn it is; nothing after the last."""
        if self.is_done:
            return
        first, second, _ = self.forest.sizes()
        gradient = self._gradient()
        rows = self._draw()
        if first < self.forest.blocks.shared:
            self._advance_shared(gradient, rows)
        elif second < self.forest.blocks.robust:
            self._advance_robust(gradient, rows)
        else:
            self._advance_specific(gradient, rows)

    def _gradient(self) -> Floats:
        """Return the negative gradients ``[C, N]``."""
        if self._loss == "squared_error":
            return self._y - self._raw
        if self._loss == "binary":  # the raw scores of the two classes are -F and F
            return self._y - sigmoid(2.0 * self._raw)
        shifted = np.exp(self._raw - self._raw.max(axis=0))
        return self._y - shifted / shifted.sum(axis=0)

    def _draw(self) -> Rows | None:
        if self._subsample == 1.0:
            return None
        size = self._y.shape[1]
        # Seeded by the iteration: a resumed training draws the same rows. Number 0 drew `theta`.
        generator = np.random.default_rng([self._seed % 2**63, 1 + self.forest.iterations])
        return np.sort(generator.choice(size, max(1, int(self._subsample * size)), replace=False))

    def _pooled(self, targets: list[Floats], weights: list[Floats | None], gradient: Floats, rows: Rows | None) -> list[Any]:
        """Grow trees over all tasks; return each with its outputs for all rows."""
        roots = self._grower.roots(gradient, rows)
        every: Rows | slice = slice(0, gradient.shape[1]) if rows is None else rows
        grown = [
            self._grower.grow([target], roots.combined(weight), [every])[0]
            for target, weight in zip(targets, weights, strict=True)
        ]
        return [(tree, output if rows is None else tree.predict(self._x)) for tree, output in grown]

    def _advance_shared(self, gradient: Floats, rows: Rows | None) -> None:
        ((tree, output),) = self._pooled([gradient], [None], gradient, rows)
        self._base += self.forest.learning_rate * output
        self._raw = self._base.copy()
        self.forest.meta.append(tree)

    def _advance_robust(self, gradient: Floats, rows: Rows | None) -> None:
        rate, theta = self.forest.learning_rate, self.forest.thetas[-1]
        share = sigmoid(theta)
        of_row = np.repeat(share, self._sizes)
        # Both trees are fitted at the same F: neither sees what the other has just learned.
        targets = [of_row * gradient, (1.0 - of_row) * gradient]
        (tree_out, output_out), (tree_in, output_in) = self._pooled(targets, [share, 1.0 - share], gradient, rows)
        agreement = (gradient * (self._outside - self._inside)).sum(axis=0)  # before this iteration's trees
        slope = np.add.reduceat(agreement, self._starts) * share * (1.0 - share)
        # One column stands for two classes of opposite gradients and functions, so each product counts twice.
        both_classes = 2.0 if self._loss == "binary" else 1.0
        self._outside += rate * output_out
        self._inside += rate * output_in
        self.forest.outside.append(tree_out)
        self.forest.inside.append(tree_in)
        self.forest.thetas.append(theta + rate * both_classes * slope)
        self._mix()

    def _mix(self) -> None:
        of_row = np.repeat(sigmoid(self.forest.thetas[-1]), self._sizes)
        self._raw = self._base + (1.0 - of_row) * self._inside + of_row * self._outside

    def _advance_specific(self, gradient: Floats, rows: Rows | None) -> None:
        roots = self._grower.roots(gradient, rows)
        own: list[Rows | slice] = list(self._slices)
        if rows is not None:
            # Drawn rows are sorted and tasks lie together, so each task's are one slice.
            edges = np.searchsorted(rows, [*self._starts, len(self._order)])
            own = [rows[edges[task] : edges[task + 1]] for task in range(len(self._slices))]
        grown = self._grower.grow([gradient] * len(own), roots, own)
        for place, (tree, output) in zip(self._slices, grown, strict=True):
            found = output if rows is None else tree.predict(self._x[place])
            self._raw[:, place] += self.forest.learning_rate * found
        self.forest.own += [tree for tree, _ in grown]

    def resume(self, arrays: Mapping[str, Array]) -> None:
        """Go on from the arrays of :meth:`RobustForest.to_arrays`: the same numbers as if there had been no stop.

        Raises:
            DataError: If they belong to other tasks.
        """
        # The trees are stored, the sums are not: they are added up again in the order of training, to the last digit.
        self.forest.fill(arrays)
        self._reset()
        rate = self.forest.learning_rate
        for kept, trees in (
            (self._base, self.forest.meta),
            (self._outside, self.forest.outside),
            (self._inside, self.forest.inside),
        ):
            for tree in trees:
                kept += rate * tree.predict(self._x)
        self._raw = self._base.copy()
        # `F` before block 2 has no part of the two functions.
        if self.forest.outside:
            self._mix()
        for number, tree in enumerate(self.forest.own):
            place = self._slices[number % len(self._slices)]
            self._raw[:, place] += rate * tree.predict(self._x[place])


def _targets(y: Array, loss: Loss, num_classes: int) -> Floats:
    if loss == "softmax":
        return np.ascontiguousarray(np.eye(num_classes)[y].T)
    return np.ascontiguousarray(np.asarray(y, dtype=np.float64).reshape(len(y), -1).T)
