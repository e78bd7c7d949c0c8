"""A sample of rows of bounded size, drawn while they stream past: which rows it holds depends on their numbers alone."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowSample", "row_keys"]

Array = NDArray[Any]


class RowSample:
    """Keeps the rows whose numbers have the smallest hashes: any order and any blocks of the same rows give the same sample.

    Args:
        max_rows: Most rows to keep, at least 1.
        seed: Equal seeds keep equal rows.

    Raises:
        ValueError: If ``max_rows`` is below 1.
    """

    def __init__(self, max_rows: int, *, seed: int = 0) -> None:
        if max_rows < 1:
            raise ValueError(f"`max_rows` must be at least 1; got {max_rows!r}.")
        self.max_rows, self.seed = max_rows, seed
        self.seen = 0
        """Rows that went past."""
        self._keys: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
        self._rows: Array | None = None
        self._targets: Array | None = None

    def update(self, rows: Array, targets: Array, numbers: NDArray[np.int64] | None = None) -> None:
        """See rows ``[n, D]`` with targets ``[n, ...]``; without numbers they are counted on."""
        if numbers is None:
            numbers = np.arange(self.seen, self.seen + len(rows), dtype=np.int64)
        self.seen += len(rows)
        keys = row_keys(numbers, self.seed)
        if len(self._keys) >= self.max_rows:
            # Most rows of a long stream are dropped here, before anything of them is copied.
            near = keys < self._keys.max()
            rows, targets, keys = rows[near], targets[near], keys[near]
        self._keep(np.array(rows), np.array(targets), keys)

    def merge(self, other: Self) -> None:
        """See the rows that ``other`` kept, in place of all that it saw: the result is the same."""
        self.seen += other.seen
        if other._rows is not None and other._targets is not None:
            self._keep(other._rows, other._targets, other._keys)

    def _keep(self, rows: Array, targets: Array, keys: NDArray[np.uint64]) -> None:
        if self._rows is not None and self._targets is not None:
            rows, targets = np.concatenate([self._rows, rows]), np.concatenate([self._targets, targets])
            keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")[: self.max_rows]
        self._rows, self._targets, self._keys = rows[order], targets[order], keys[order]

    @property
    def rows(self) -> Array:
        """The kept rows, ``[n, D]``, in an order that depends on their numbers alone."""
        return np.zeros((0, 0)) if self._rows is None else self._rows

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Their hashes (:func:`row_keys`), ascending."""
        return self._keys

    @property
    def targets(self) -> Array:
        """Their targets."""
        return np.zeros(0) if self._targets is None else self._targets


def row_keys(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return the hashes of row numbers ``[n]``, by splitmix64: well mixed, and the same everywhere."""
    with np.errstate(over="ignore"):
        value = numbers.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(value ^ (value >> np.uint64(31)))
