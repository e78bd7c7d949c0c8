"""The memory meter: bytes that are held for the backward pass, and resident memory, of whatever runs inside it.

What is held is counted by saved-tensor hooks as it is kept and let go: the peak is that of the step, wherever in it that is
(recomputed blocks, several backward passes). Claims about memory are measured with this, on the same model and batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from graftwork.evaluation.memory import PeakMemory

__all__ = ["MemoryMeter"]


class MemoryMeter:
    """Context manager; the numbers are final after the block. Of nested blocks the innermost one counts what is held.

    Every storage counts once and whole, however many views of it are saved, as memory does. Only what this thread saves counts.

    Args:
        exclude: Tensors whose storages do not count, because they are there anyway: parameters and buffers
            (``[*model.parameters(), *model.buffers()]``).

    Example:
        >>> x = torch.ones(10, requires_grad=True)
        >>> with MemoryMeter() as meter:
        ...     x.exp().sum().backward()
        >>> meter.held_bytes
        40
    """

    def __init__(self, exclude: Iterable[Tensor] = ()) -> None:
        self._skipped = {tensor.untyped_storage().data_ptr() for tensor in exclude}
        self._held: dict[int, list[int]] = {}
        self._now = 0
        self.held_bytes = 0
        """Most bytes that were held for backward passes at one moment."""
        self.rss_bytes = 0
        """Highest resident memory of the process."""
        self.rss_increase_bytes = 0
        """How far that is above the resident memory at the start, at least 0."""
        self.seconds = 0.0
        """Wall time of the block."""
        self._rss = PeakMemory()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)
        self._started = 0.0

    def _pack(self, tensor: Tensor) -> _Kept:
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self._skipped:
            entry = self._held.setdefault(address, [size, 0])
            # Kept alive by what is returned, so that its address is not used again before it is let go.
            entry[1] += 1
            if entry[1] == 1:
                self._now += size
                self.held_bytes = max(self.held_bytes, self._now)
        # Detached: a tensor that a node returned and keeps would hold the node, which holds the tensor.
        return _Kept(self, address, tensor.detach())

    @staticmethod
    def _unpack(kept: _Kept) -> Tensor:
        return kept.tensor

    def _let_go(self, address: int) -> None:
        entry = self._held.get(address)
        if entry is None:
            return
        entry[1] -= 1
        if not entry[1]:
            self._now -= entry[0]
            del self._held[address]

    def __enter__(self) -> Self:
        self._rss.__enter__()
        self._hooks.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._started
        self._hooks.__exit__(kind, error, trace)
        self._rss.__exit__(kind, error, trace)
        self.rss_bytes, self.rss_increase_bytes = self._rss.peak_bytes, self._rss.increase_bytes


class _Kept:
    """What autograd holds in place of a saved tensor."""

    __slots__ = ("address", "meter", "tensor")

    def __init__(self, meter: MemoryMeter, address: int, tensor: Tensor) -> None:
        self.meter, self.address, self.tensor = meter, address, tensor

    def __del__(self) -> None:
        self.meter._let_go(self.address)
