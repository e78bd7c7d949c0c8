"""What training and using a model costs, by the same probes for every plan, added up over resumed runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.evaluation.memory import PeakMemory
from graftwork.evaluation.probes import activation_bytes, flops_per_sample, latency_ms
from graftwork.interfaces.shared_model import SharedModel
from graftwork.training.averaging import copy_sharing

__all__ = ["CostMeter", "held_for_backward", "inference_costs"]

QUICK_MS = 10.0
"""A row slower than this is not timed 32 at a time: the measurement would cost more than it tells."""


class CostMeter:
    """Adds up the seconds of everything done inside :meth:`running`, and keeps the highest memory."""

    def __init__(self) -> None:
        self.wall_seconds = 0.0
        self.cpu_seconds = 0.0
        self.peak_rss_bytes = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure the block, also if it raises."""
        memory = PeakMemory()
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            with memory:
                yield
        finally:
            self.wall_seconds += time.perf_counter() - wall
            self.cpu_seconds += time.process_time() - cpu
            self.peak_rss_bytes = max(self.peak_rss_bytes, memory.peak_bytes)

    def state_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"wall_seconds": self.wall_seconds, "cpu_seconds": self.cpu_seconds, "peak_rss_bytes": self.peak_rss_bytes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.wall_seconds = float(state["wall_seconds"])
        self.cpu_seconds = float(state["cpu_seconds"])
        self.peak_rss_bytes = int(state["peak_rss_bytes"])


def held_for_backward(model: SharedModel, batch: Batch) -> int:
    """Return the bytes that the forward pass of a training step keeps for its backward pass, frozen weights not counted.

    Neither the model's buffers nor the global random state change.
    """
    twin = copy_sharing(model, {id(buffer): buffer.clone() for buffer in model.buffers()}).train()
    tensors = [*twin.parameters(), *twin.buffers(), *batch.inputs.values()]
    with torch.random.fork_rng(devices=[]):
        return activation_bytes(lambda: twin(batch.inputs), exclude=tensors)


def inference_costs(model: SharedModel, inputs: Mapping[str, Tensor], *, threads: int) -> dict[str, float]:
    """Return ``flops_per_sample``, ``latency_ms_batch1`` and ``latency_ms_batch32`` (0 for slow models) of eager PyTorch.

    Args:
        model: Takes ``inputs``.
        inputs: One row.
        threads: Threads of the timing.
    """
    single = latency_ms(model, inputs, batch_sizes=(1,), repeats=7, threads=threads).milliseconds[1]
    several = (
        latency_ms(model, inputs, batch_sizes=(32,), repeats=3, threads=threads).milliseconds[32] if single < QUICK_MS else 0.0
    )
    return {
        "flops_per_sample": flops_per_sample(model, inputs),
        "latency_ms_batch1": single,
        "latency_ms_batch32": several,
    }
