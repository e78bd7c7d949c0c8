"""Regression trees on binned columns, several outputs per leaf, grown for one or many tasks from one pass over the rows.

A tree fits targets ``g`` (negative gradients): it splits where the squared error falls most, summed over the outputs, and a leaf
holds the mean of its rows' targets, as scikit-learn's ``DecisionTreeRegressor`` does, best leaf first. The trees are binned:
columns are cut once, into at most ``max_bins`` intervals, and every threshold is one of these cuts. With as many bins as a
column has values, the rows that a tree was grown from are split exactly as there, and a first split is exact for new rows too. A
deeper node holds some of the values only; of the cuts between two neighbours of its own it takes the middle one by
rank, where exact trees take the midpoint by distance. New rows between these two values may go to the other side. One pass gives
the histograms of every task at once: their sum is the root of a pooled tree, any weighting of tasks is a weighted sum, and each
by itself is the root of a task's own tree.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.domains.tabular.regression_tree import Floats, Tree, TreeShape

__all__ = ["Roots", "TreeGrower", "best_splits", "column_cuts"]

Array = NDArray[Any]
Rows = NDArray[np.int64]
_SMALLEST_GAIN = 1e-13
"""Gains below this share of the score are rounding errors."""


@dataclass(frozen=True, slots=True)
class Roots:
    """Histograms of some trees' roots."""

    sums: Floats
    """Sums of targets ``[G, C, F, B]`` of ``G`` trees."""
    counts: Floats
    """Numbers of rows ``[G, F, B]``."""

    def combined(self, weights: Floats | None = None) -> Roots:
        """Return the root of one tree over all rows, whose targets are multiplied by a weight ``[G]`` of their group (None:
        1)."""
        sums = self.sums.sum(axis=0) if weights is None else np.tensordot(weights, self.sums, axes=1)
        return Roots(sums[None], self.counts.sum(axis=0, keepdims=True))


@dataclass(slots=True)
class _Leaf:
    node: int
    depth: int
    rows: Rows | slice
    sums: Floats | None
    counts: Floats | None
    gain: float = -np.inf
    feature: int = 0
    cut: int = 0


def column_cuts(column: Array, max_bins: int) -> Floats:
    """Return the sorted cut points of a column, fewer than ``max_bins``: midway between neighbouring values, at equal shares of
    rows if there are many."""
    ordered = np.sort(np.asarray(column, dtype=np.float64))
    values = np.unique(ordered)
    if len(values) <= max_bins:
        return (values[:-1] + values[1:]) / 2.0
    # Places of equal shares in the sorted rows; common values are hit more than once.
    places = np.unique(np.arange(1, max_bins) * len(ordered) // max_bins)
    below = np.unique(ordered[places - 1])
    # Above the largest value there is nothing to part.
    below = below[below < values[-1]]
    above = values[np.searchsorted(values, below, side="right")]
    return (below + above) / 2.0


def best_splits(sums: Floats, counts: Floats, min_samples_leaf: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return gain, column and cut ``[G]`` of the best split of each node; the gain is minus infinity where there is none.

    Args:
        sums: Sums of targets ``[G, C, F, B]``.
        counts: Numbers of rows ``[G, F, B]``.
        min_samples_leaf: Fewest rows on a side.
    """
    left, smaller = np.cumsum(sums, axis=3), np.cumsum(counts, axis=2)
    whole, rows = left[..., -1:], smaller[..., -1:]
    # A cut behind the last bin would leave the right side empty.
    left, smaller = left[..., :-1], smaller[..., :-1]
    larger = rows - smaller
    allowed = (smaller >= min_samples_leaf) & (larger >= min_samples_leaf)
    right = whole - left
    with np.errstate(divide="ignore", invalid="ignore"):
        # A leaf that predicts its mean lowers the squared error by (sum of targets)^2 / rows. Divisions by 0 are not `allowed`.
        score = np.square(left).sum(axis=1) / smaller + np.square(right).sum(axis=1) / larger
        # [G, F, B - 1]
        gain = np.where(allowed, score - np.square(whole).sum(axis=1) / rows, -np.inf)
    flat = gain.reshape(len(gain), -1)
    if flat.shape[1] == 0:
        return np.full(len(gain), -np.inf), np.zeros(len(gain), np.int64), np.zeros(len(gain), np.int64)
    best = flat.argmax(axis=1)
    every = np.arange(len(gain))
    found = flat[every, best]
    with np.errstate(invalid="ignore"):  # minus infinity stays so
        found = np.where(found > _SMALLEST_GAIN * np.abs(score.reshape(len(gain), -1)[every, best]), found, -np.inf)
    # The flat place back to column and cut.
    feature, cut = np.divmod(best, gain.shape[2])
    # empty bins beside the cut gain the same: take the middle, as if it were midway between the node's own values
    ahead = np.arange(counts.shape[2]) > cut[:, None]
    following = np.argmax(ahead & (counts[every, feature] > 0), axis=1)
    return found, feature, np.where(following > cut, cut + (following - cut - 1) // 2, cut)


class TreeGrower:
    """Binned rows, from which any number of trees is grown.

    Args:
        x: Features ``[N, F]``, float32, finite; rows of one task lie together.
        task_sizes: Number of rows of each task ``[T]``, in order.
        shape: Limits of the trees.
    """

    def __init__(self, x: Array, task_sizes: Sequence[int], shape: TreeShape) -> None:
        self.shape = shape
        self._is_stump = shape.max_leaf_nodes == 2 or shape.max_depth == 1
        self.cuts = [column_cuts(x[:, column], shape.max_bins) for column in range(x.shape[1])]
        self.num_bins = max((len(cuts) for cuts in self.cuts), default=0) + 1
        narrow = np.uint8 if self.num_bins <= 256 else np.uint16
        # [F, N]: columns are contiguous, since histograms go through them one by one.
        self.codes = np.stack([np.searchsorted(cuts, x[:, column]).astype(narrow) for column, cuts in enumerate(self.cuts)])
        self.num_tasks = len(task_sizes)
        self._members = self._incidence(np.repeat(np.arange(self.num_tasks), task_sizes))
        self._counts = self._pass(np.ones(len(x)))

    def _incidence(self, task: NDArray[np.int64]) -> Any:
        """Return the sparse matrix ``[F * T * B, N]`` of which row lies in which bin of which task: its product with targets is
        all histograms at once."""
        from scipy.sparse import csr_array

        # [F, N]: one number for each pair of task and bin.
        keys = task * self.num_bins + self.codes
        size = self.num_tasks * self.num_bins
        ends = np.concatenate(
            [np.cumsum(np.bincount(key, minlength=size)) + column * len(task) for column, key in enumerate(keys)]
        )
        wide = np.int32 if keys.size < 2**31 else np.int64
        # Rows sorted by key are the column indices of the sparse matrix. For 16 bits NumPy sorts by radix.
        order = np.argsort(keys.astype(np.uint16 if size <= 65_536 else np.int64), axis=1, kind="stable").astype(wide)
        starts = np.concatenate([[0], ends]).astype(wide)
        return csr_array((np.ones(keys.size), order.ravel(), starts), shape=(len(keys) * size, len(task)))

    def _pass(self, weights: Floats) -> Floats:
        """Return sums of weights ``[N]`` by task, column and bin ``[T, F, B]``."""
        found: Floats = self._members @ weights
        return found.reshape(len(self.codes), self.num_tasks, self.num_bins).transpose(1, 0, 2)

    def roots(self, targets: Floats, rows: Rows | None = None) -> Roots:
        """Return the histograms of each task's rows.

        Args:
            targets: ``[C, N]``.
            rows: Rows that count; None for all.
        """
        counts = self._counts
        if rows is not None:
            counted = np.zeros(targets.shape[1])
            counted[rows] = 1.0
            # Rows that do not count get a target of 0, so the sums need no other matrix.
            counts, targets = self._pass(counted), targets * counted
        return Roots(np.stack([self._pass(target) for target in targets], axis=1), counts)

    def grow(self, targets: Sequence[Floats], roots: Roots, rows: Sequence[Rows | slice]) -> list[tuple[Tree, Floats]]:
        """Grow ``G`` trees.

        Args:
            targets: ``[C, N]`` of each tree, for all rows of the table.
            roots: Their histograms.
            rows: The rows of each tree, those of ``roots``.

        Returns:
            Each tree with its outputs ``[C, n]`` for its rows.
        """
        gains, features, cuts = best_splits(roots.sums, roots.counts, self.shape.min_samples_leaf)
        grown = []
        for number, own in enumerate(rows):
            root = _Leaf(0, 0, own, roots.sums[number], roots.counts[number])
            root.gain, root.feature, root.cut = float(gains[number]), int(features[number]), int(cuts[number])
            grown.append(self._grow_one(targets[number], root))
        return grown

    def _grow_one(self, targets: Floats, root: _Leaf) -> tuple[Tree, Floats]:
        assert root.sums is not None
        assert root.counts is not None
        if self._is_stump and isinstance(root.rows, slice) and root.gain > -np.inf:
            return self._stump(root)
        start, stop = (root.rows.start, root.rows.stop) if isinstance(root.rows, slice) else (0, targets.shape[1])
        outputs = np.zeros((len(targets), stop - start))
        values = [root.sums[:, 0].sum(axis=1) / max(root.counts[0].sum(), 1.0)]
        splits: dict[int, tuple[int, float, int, int]] = {}
        # The node number breaks ties of equal gains: leaves themselves cannot be compared.
        waiting = [(-root.gain, 0, root)]
        done: list[_Leaf] = []
        leaves = 1
        while waiting:
            _, _, leaf = heapq.heappop(waiting)
            if leaf.gain == -np.inf or (self.shape.max_leaf_nodes is not None and leaves >= self.shape.max_leaf_nodes):
                done.append(leaf)
                continue
            leaves += 1
            # the last split and the deepest level need no further histograms
            is_last = leaves == self.shape.max_leaf_nodes or leaf.depth + 1 == self.shape.max_depth
            children = self._split(leaf, targets, len(values), values, is_last=is_last)
            splits[leaf.node] = (
                leaf.feature,
                float(self.cuts[leaf.feature][leaf.cut]),
                children[0].node,
                children[1].node,
            )
            for child in children:
                heapq.heappush(waiting, (-child.gain, child.node, child))
        for leaf in done:
            place = slice(None) if isinstance(leaf.rows, slice) else leaf.rows - start
            outputs[:, place] = values[leaf.node][:, None]
        if not isinstance(root.rows, slice):
            outputs = outputs[:, root.rows]
        return _assemble(splits, values), outputs

    def _stump(self, root: _Leaf) -> tuple[Tree, Floats]:
        """Return a tree of two leaves: what :meth:`_grow_one` does, without lists of rows."""
        assert root.sums is not None
        assert root.counts is not None
        sums, counts = root.sums[:, root.feature], root.counts[root.feature]
        # Bins up to the cut go left.
        edge = root.cut + 1
        values = [sums.sum(axis=1) / counts.sum(), sums[:, :edge].sum(axis=1) / counts[:edge].sum()]
        values.append(sums[:, edge:].sum(axis=1) / counts[edge:].sum())
        goes_left = self.codes[root.feature, root.rows] <= root.cut
        outputs = np.where(goes_left, values[1][:, None], values[2][:, None])
        return _assemble({0: (root.feature, float(self.cuts[root.feature][root.cut]), 1, 2)}, values), outputs

    def _split(self, leaf: _Leaf, targets: Floats, number: int, values: list[Floats], *, is_last: bool) -> tuple[_Leaf, _Leaf]:
        assert leaf.sums is not None
        assert leaf.counts is not None
        column = self.codes[leaf.feature]
        goes_left = column[leaf.rows] <= leaf.cut
        if isinstance(leaf.rows, slice):
            rows = [np.flatnonzero(side) + leaf.rows.start for side in (goes_left, ~goes_left)]
        else:
            rows = [leaf.rows[goes_left], leaf.rows[~goes_left]]
        head = leaf.sums[:, leaf.feature, : leaf.cut + 1].sum(axis=1)
        tail = leaf.sums[:, leaf.feature, leaf.cut + 1 :].sum(axis=1)
        values += [head / len(rows[0]), tail / len(rows[1])]
        children = (
            _Leaf(number, leaf.depth + 1, rows[0], None, None),
            _Leaf(number + 1, leaf.depth + 1, rows[1], None, None),
        )
        if not is_last:
            # Only the smaller child is counted; the larger one is its parent less that.
            small = 0 if len(rows[0]) <= len(rows[1]) else 1
            sums, counts = self._histogram(targets, rows[small])
            other = leaf.counts - counts
            # Differences leave rounding errors in empty bins, which must be exactly 0.
            rest = np.where(other > 0, leaf.sums - sums, 0.0)
            pairs = [(sums, counts), (rest, other)]
            both = pairs if small == 0 else pairs[::-1]
            stacked = np.stack([pair[0] for pair in both]), np.stack([pair[1] for pair in both])
            gains, features, cuts = best_splits(*stacked, self.shape.min_samples_leaf)
            for index, child in enumerate(children):
                child.sums, child.counts = stacked[0][index], stacked[1][index]
                child.gain, child.feature, child.cut = float(gains[index]), int(features[index]), int(cuts[index])
        return children

    def _histogram(self, targets: Floats, rows: Rows) -> tuple[Floats, Floats]:
        """Return sums ``[C, F, B]`` and counts ``[F, B]`` of some rows."""
        sums = np.empty((len(targets), len(self.codes), self.num_bins))
        counts = np.empty((len(self.codes), self.num_bins))
        weights = targets.take(rows, axis=1)
        for column, codes in enumerate(self.codes):
            wide = codes.take(rows).astype(np.intp)
            counts[column] = np.bincount(wide, minlength=self.num_bins)
            for output, weight in enumerate(weights):
                sums[output, column] = np.bincount(wide, weights=weight, minlength=self.num_bins)
        return sums, counts


def _assemble(splits: dict[int, tuple[int, float, int, int]], values: list[Floats]) -> Tree:
    size = len(values)
    # A leaf is its own child, and every row goes left.
    nodes = [splits.get(node, (0, np.inf, node, node)) for node in range(size)]
    feature, threshold, left, right = zip(*nodes, strict=True)
    return Tree(
        np.array(feature, dtype=np.int32),
        np.array(threshold, dtype=np.float64),
        np.array(left, dtype=np.int32),
        np.array(right, dtype=np.int32),
        np.stack(values),
    )
