"""The exact k-th largest magnitude of a difference of two models, found by streaming over their tensors.

First pass: a systematic sample (every entry as long as it fits, then every second, fourth ...). If nothing was skipped the answer is
exact at once; otherwise the sample brackets it, and a second pass counts what lies above the bracket and collects what lies inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["KthMagnitude"]

Array = NDArray[Any]
_CHUNK = 1 << 18
_LARGEST_SAMPLE = 1 << 19
_DEVIATIONS = 8.0  # half width of the bracket in standard deviations of a sample quantile


class KthMagnitude:
    """Search for one model; see the module's docstring.

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
        self._stride = 1
        self._sample: list[Array] = []
        self._sampled = 0
        self._bracket: tuple[Any, Any] | None = None
        self._above = 0
        self._seen = 0

    def observe(self, tuned: Array, base: Array) -> None:
        """See one tensor, both flat and of equal length."""
        if self.is_done:
            return
        if self._bracket is None:
            self._take_sample(tuned, base)
            self.total += base.size
        else:
            self._collect(tuned, base)
        self._seen += base.size

    def finish_pass(self, *, rank_from_top: int) -> None:
        """Settle or bracket the magnitude at a rank.

        Args:
            rank_from_top: 1 is the largest magnitude; at least 1, at most :attr:`total`.
        """
        if self.is_done:
            return
        values = np.concatenate(self._sample) if self._sample else np.zeros(0, np.float32)
        if self._bracket is None:
            if self.total == 0:
                self.threshold, self.is_done = np.float32(0.0), True
            elif self._stride == 1:
                self._settle(values, rank_from_top)
            else:
                self._set_bracket(values, rank_from_top)
        elif self._above < rank_from_top <= self._above + values.size:
            self._settle(values, rank_from_top - self._above)
        else:  # the sample was misleading (periodic weights, say): widen to everything on the side that was missed
            low, high = self._bracket
            self._bracket = (np.float32(0.0), low) if rank_from_top > self._above else (high, np.float32(np.inf))
        self._sample, self._sampled, self._seen, self._above = [], 0, 0, 0

    def _take_sample(self, tuned: Array, base: Array) -> None:
        offset = -self._seen % self._stride
        for start in range(offset, base.size, _CHUNK * self._stride):
            window = slice(start, start + _CHUNK * self._stride, self._stride)
            self._sample.append(_magnitude(tuned[window], base[window]))
            self._sampled += self._sample[-1].size
        while self._sampled > self._largest:
            joined = np.concatenate(self._sample)[::2].copy()
            self._sample, self._sampled = [joined], joined.size
            self._stride *= 2

    def _set_bracket(self, values: Array, rank_from_top: int) -> None:
        share = rank_from_top / self.total
        spread = _DEVIATIONS * np.sqrt(share * (1.0 - share) / values.size) + 1.0 / values.size
        ordered = np.sort(values)[::-1]
        first = int(np.floor((share - spread) * values.size))
        last = int(np.ceil((share + spread) * values.size))
        high = np.float32(np.inf) if first < 0 else ordered[first]
        low = np.float32(0.0) if last >= values.size else ordered[last]
        self._bracket = (low, high)

    def _collect(self, tuned: Array, base: Array) -> None:
        assert self._bracket is not None
        low, high = self._bracket
        for start in range(0, base.size, _CHUNK):
            window = slice(start, start + _CHUNK)
            magnitude = _magnitude(tuned[window], base[window])
            above = magnitude > high
            self._above += int(np.count_nonzero(above))
            inside = (magnitude >= low) & ~above
            self._sample.append(magnitude[inside])

    def _settle(self, values: Array, rank_from_top: int) -> None:
        position = values.size - rank_from_top
        self.threshold = np.partition(values, position)[position]
        self.is_done = True


def _magnitude(tuned: Array, base: Array) -> Array:
    difference = np.subtract(tuned, base, dtype=np.result_type(tuned, base, np.float32))
    return np.abs(difference, out=difference)
