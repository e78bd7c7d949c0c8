"""The exact k-th largest magnitude of a difference of two models, found by streaming over their tensors.

First pass: a systematic sample (every entry as long as it fits, then every second, fourth ...). If nothing was skipped the
answer is exact at once; otherwise two values of the sample bracket it, and a second pass counts what lies above the bracket or
on one of its ends
and collects what lies strictly inside. Entries on the ends are only counted: where most changes are zero, or take a few values,
nothing of them is kept. Where the inside does not fit (many billions of entries, or a misleading sample) it is sampled in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError

__all__ = ["KthMagnitude"]

Array = NDArray[Any]
_CHUNK = 1 << 18
_LARGEST_SAMPLE = 1 << 19
_LARGEST_INSIDE = 16  # times the sample: enough for the bracket of a billion entries
_DEVIATIONS = 8.0  # half width of the bracket in standard deviations of a sample quantile


class KthMagnitude:
    """Search for one model; see the module's docstring. NaN sorts above everything, as in NumPy.

    Args:
        largest_sample: Magnitudes kept in the first pass; later passes keep up to 16 times as many.

    Example:
        >>> search = KthMagnitude()
        >>> search.observe(np.array([1.0, -5.0, 3.0, 0.0], np.float32), np.zeros(4, np.float32))
        >>> search.finish_pass(rank_from_top=2)
        >>> float(search.threshold), search.total
        (3.0, 4)
    """

    def __init__(self, *, largest_sample: int = _LARGEST_SAMPLE) -> None:
        self.total = 0
        """Number of entries seen in the first pass."""
        self.threshold: Any = np.float32(np.nan)
        """The magnitude, in the precision of the tensors (float32 at least)."""
        self.is_done = False
        self._largest = largest_sample
        self._bracket: tuple[Any, Any] | None = None
        self._sample = _Sample(largest_sample)
        self._above = self._on_high = self._on_low = self._inside = 0

    def observe(self, tuned: Array, base: Array) -> None:
        """See one tensor, both flat and of equal length."""
        if self.is_done:
            return
        if self._bracket is None:
            self._sample.take(base.size, lambda window: _magnitude(tuned[window], base[window]))
            self.total += base.size
        else:
            self._collect(tuned, base)

    def finish_pass(self, *, rank_from_top: int) -> None:
        """Settle or bracket the magnitude at a rank.

        Args:
            rank_from_top: 1 is the largest magnitude; at least 1, at most :attr:`total`.

        Raises:
            DataError: If the entry at this rank is NaN.
        """
        if self.is_done:
            return
        values, is_whole = self._sample.values(), self._sample.stride == 1
        if self._bracket is None:
            if self.total == 0:
                self.threshold, self.is_done = np.float32(0.0), True
            else:
                self._within(values, rank_from_top, self.total, is_whole)
        else:
            low, high = self._bracket
            on_high, on_low = self._above + self._on_high, self._above + self._on_high + self._inside
            if (
                rank_from_top <= self._above
            ):  # the sample was misleading (periodic weights, say): look at the side that was missed
                if np.isinf(high):
                    self._settle(np.nan)
                self._bracket = (high, np.inf)
            elif rank_from_top <= on_high:
                self._settle(high)
            elif rank_from_top <= on_low:
                self._within(values, rank_from_top - on_high, self._inside, is_whole)
            elif rank_from_top <= on_low + self._on_low:
                self._settle(low)
            else:
                self._bracket = (0.0, low)
        # Every pass samples anew and counts anew: the bracket alone is carried over.
        self._sample = _Sample(self._largest * _LARGEST_INSIDE)
        self._above = self._on_high = self._on_low = self._inside = 0

    def _collect(self, tuned: Array, base: Array) -> None:
        assert self._bracket is not None
        low, high = self._bracket
        for start in range(0, base.size, _CHUNK):
            window = slice(start, start + _CHUNK)
            magnitude = _magnitude(tuned[window], base[window])
            near = magnitude <= high
            # Not counted as `magnitude > high`, so that NaN, which compares false, lands above as well.
            self._above += magnitude.size - int(np.count_nonzero(near))
            near &= magnitude >= low
            # Few, unless most changes take one of the two values.
            magnitude = magnitude[near]
            self._on_high += int(np.count_nonzero(magnitude == high))
            # With equal ends the entries on them were counted as `on_high`.
            if low < high:
                self._on_low += int(np.count_nonzero(magnitude == low))
            inside = magnitude[(magnitude > low) & (magnitude < high)]
            self._inside += inside.size
            self._sample.take(inside.size, inside.__getitem__)

    def _within(self, values: Array, rank: int, total: int, is_whole: bool) -> None:
        """Settle the rank among the values inside the bracket, or bracket it closer where they are a sample."""
        if is_whole:
            # A whole sample: the answer is exact. NumPy sorts NaN last, that is, as the largest.
            self._settle(np.partition(values, values.size - rank)[values.size - rank])
            return
        # Rank as a quantile of the sample, with the standard error of a quantile around it; 1 / n covers rounding of the rank.
        share = rank / total
        spread = _DEVIATIONS * np.sqrt(share * (1.0 - share) / values.size) + 1.0 / values.size
        ordered = np.sort(values)[::-1]
        first = int(np.floor((share - spread) * values.size))
        last = int(np.ceil((share + spread) * values.size))
        # Where the sample has no such entry, the old end stays.
        low, high = self._bracket or (0.0, np.inf)
        high = high if first < 0 or np.isnan(ordered[first]) else ordered[first]
        low = low if last >= values.size or np.isnan(ordered[last]) else ordered[last]
        self._bracket = (low, high)

    def _settle(self, value: Any) -> None:
        if np.isnan(value):
            raise DataError("So many changes of a model are NaN that no share of the largest ones can be kept.")
        self.threshold, self.is_done = value, True


class _Sample:
    """Every ``stride``-th of the values that pass by; the stride doubles whenever there are too many."""

    def __init__(self, largest: int) -> None:
        self.stride = 1
        self._largest = largest
        self._seen = 0
        self._parts: list[Array] = []
        self._size = 0

    def take(self, size: int, values: Callable[[slice], Array]) -> None:
        """Sample the next ``size`` values, which ``values`` gives slice by slice."""
        # Sampled are multiples of the stride in the count of all values, so tensors and chunks may be cut anywhere.
        position = -self._seen % self.stride
        while position < size:
            part = values(slice(position, position + _CHUNK * self.stride, self.stride))
            self._parts.append(part)
            self._size += part.size
            position += part.size * self.stride
            while self._size > self._largest:
                # Every second of what is kept equals a stride twice as long from the start. The copy frees the longer array.
                self._parts = [np.concatenate(self._parts)[::2].copy()]
                self._size = self._parts[0].size
                self.stride *= 2
            # The stride may have doubled: on to the next multiple of the new one.
            position += -(self._seen + position) % self.stride
        self._seen += size

    def values(self) -> Array:
        """Return what was kept."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)


def _magnitude(tuned: Array, base: Array) -> Array:
    difference = np.subtract(tuned, base, dtype=np.result_type(tuned, base, np.float32))
    return np.abs(difference, out=difference)
