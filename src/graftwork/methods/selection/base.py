"""What every scorer does with a block first: check it, drop rows without a target, widen to float64."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.interfaces.scorer import ScoredRows, Scorer

__all__ = ["BLOCK", "CheckedScorer", "class_count"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
BLOCK = 1024
"""Rows that are widened to float64 at a time: few enough that they are still in the cache when they are multiplied."""


class CheckedScorer(Scorer):
    """Checks blocks and hands their usable rows on to :meth:`add`, at most :data:`BLOCK` at a time."""

    _width = 0
    _target_kind: Literal["", "classes", "values"] = ""

    def update(self, rows: ScoredRows) -> None:
        """See one block.

        Raises:
            DataError: If the block lacks what the scorer reads, its shape does not fit earlier ones, or a number is not finite.
        """
        seen = rows.features if self.reads == "features" else rows.probabilities
        name = type(self).__name__
        if seen is None:
            raise DataError(f"{name} reads {self.reads}, which this source does not give.")
        if seen.ndim != 2 or len(seen) != len(rows.target):
            raise DataError(
                f"{name} reads {self.reads} [n, D] with one target a row; got {seen.shape} and targets {rows.target.shape}."
            )
        if self._width and seen.shape[1] != self._width:
            raise DataError(f"{name} got {seen.shape[1]} {self.reads} a row after blocks with {self._width}.")
        self._width = seen.shape[1]
        kind, target, usable = self._target(rows.target)
        self._target_kind = kind
        for start in range(0, len(seen), BLOCK):
            part = slice(start, start + BLOCK)
            kept = usable[part]
            if not kept.any():
                continue
            # All rows of most blocks are usable; a mask would copy them once more.
            block = np.asarray(seen[part], dtype=np.float64) if kept.all() else np.asarray(seen[part][kept], dtype=np.float64)
            if not np.isfinite(block.sum()) and not np.isfinite(block).all():
                bad = int((~np.isfinite(block)).any(axis=1).sum())
                raise DataError(f"{name}: {bad} of {len(block)} rows have {self.reads} that are not finite. Check the source.")
            numbers = None if rows.rows is None else rows.rows[part][kept]
            self.add(block, target[part][kept], numbers)

    @abstractmethod
    def add(self, rows: Floats, target: Array, numbers: NDArray[np.int64] | None) -> None:
        """Add rows ``[n, D]``, finite, with classes int64 ``[n]`` or values float64 ``[n, K]``, none of them missing."""

    def _join(self, other: CheckedScorer) -> None:
        """Take over what ``other`` knows of the blocks' layout; its statistics are left to :meth:`merge`."""
        self._target_kind = self._target_kind or other._target_kind
        self._width = self._width or other._width

    def _target(self, target: Array) -> tuple[Literal["classes", "values"], Array, NDArray[np.bool_]]:
        kind: Literal["classes", "values"] = "classes" if np.issubdtype(target.dtype, np.integer) else "values"
        name = type(self).__name__
        if kind not in self.kinds:
            raise DataError(f"{name} judges {' and '.join(sorted(self.kinds))}; got targets of type {target.dtype}.")
        if self._target_kind and kind != self._target_kind:
            raise DataError(f"{name} got {kind} after blocks with {self._target_kind}.")
        if kind == "classes":
            if target.ndim != 1:
                raise DataError(f"{name} reads one class a row, [n]; got {target.shape}.")
            return kind, target.astype(np.int64), target >= 0
        if target.ndim > 2:
            raise DataError(f"{name} reads values [n] or [n, K]; got {target.shape}.")
        values = target.reshape(len(target), -1).astype(np.float64)
        if np.isinf(values).any():
            raise DataError(f"{name}: a target value is infinite.")
        return kind, values, np.asarray(~np.isnan(values).any(axis=1), dtype=np.bool_)


def class_count(scorer: Scorer, counts: Array) -> int:
    """Return how many classes have rows.

    Raises:
        DataError: If fewer than two have.
    """
    present = int((counts > 0).sum())
    if present < 2:
        what = "no row has a label" if present == 0 else "all labelled rows are of one class"
        raise DataError(f"{type(scorer).__name__} needs rows of at least two classes: {what}.")
    return present
