"""What a model costs: parameters, FLOPs, latency, memory. The same probes for every plan, so that their numbers compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.evaluation.memory import PeakMemory, current_rss_bytes

__all__ = [
    "Latency",
    "ParameterCount",
    "PeakMemory",
    "activation_bytes",
    "count_parameters",
    "current_rss_bytes",
    "flops_per_sample",
    "latency_ms",
]


class ParameterCount(NamedTuple):
    """Numbers of parameters; one that several modules share counts once."""

    total: int
    trainable: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Median time of one call in milliseconds, by batch size, and the threads it ran on."""

    milliseconds: Mapping[int, float]
    threads: int
    """0 means that the runtime chose."""
    runtime: str
    """``"eager"`` or ``"onnxruntime"``."""


def count_parameters(model: nn.Module) -> ParameterCount:
    """Return how many numbers the parameters of a model hold, and how many of them are trained. Buffers do not count."""
    # `parameters()` yields a shared one once.
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return ParameterCount(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained))


def flops_per_sample(model: nn.Module, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> float:
    """Return the floating-point operations of one forward pass per row, by torch's own counter (multiply and add are two).

    Element-wise operations do not count; matrix products, convolutions and attention do.

    Args:
        model: Called as ``model(inputs)``, or ``model(inputs, tasks)`` if tasks are given, in evaluation mode; its modes are
            restored.
        inputs: A batch; the first dimension counts rows.
        tasks: Tasks to compute; None computes all.

    Raises:
        ValueError: If ``inputs`` has no rows.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from graftwork.evaluation.flop_count import FlopCount

    rows = len(next(iter(inputs.values())))
    if not rows:
        raise ValueError("`inputs` must hold at least one row.")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    counter = FlopCount()
    try:
        # The counter does not know the CPU's fused attention kernel; the plain one does the same operations.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            if tasks is None:
                model(inputs)
            else:
                model(inputs, tasks)
    finally:
        for module, mode in modes:
            module.training = mode
    return counter.total / rows


def _tiled(value: Any, rows: int) -> Any:
    repeats = -(-rows // len(value))
    if isinstance(value, Tensor):
        # contiguous: a strided view would be timed with the copy that it causes.
        return value.repeat(repeats, *[1] * (value.ndim - 1))[:rows].contiguous()
    return np.ascontiguousarray(np.concatenate([value] * repeats)[:rows])


def _median_ms(call: Callable[[], Any], repeats: int) -> float:
    # Warm-up: the first calls allocate, choose kernels and fill caches.
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    # The median: one call that the system interrupts must not count.
    return 1000 * statistics.median(times)


def latency_ms(
    model: Any, inputs: Mapping[str, Any], *, batch_sizes: Sequence[int] = (1, 32), repeats: int = 20, threads: int = 1
) -> Latency:
    """Measure the median time of a forward pass.

    Args:
        model: A module, called as ``model(inputs)`` without gradients in evaluation mode, or an ONNX Runtime session.
        inputs: Example rows (tensors for a module, arrays for a session), repeated or cut to the batch sizes.
        batch_sizes: Batch sizes to measure.
        repeats: Timed calls for each size, after three that do not count.
        threads: Threads for eager PyTorch, restored afterwards; a session keeps those that it was made with, and they are stated.

    Raises:
        ValueError: If ``inputs`` has no rows.
    """
    if not len(next(iter(inputs.values()))):
        raise ValueError("`inputs` must hold at least one row.")
    if not isinstance(model, nn.Module):
        feeds = {size: {name: _tiled(value, size) for name, value in inputs.items()} for size in batch_sizes}
        found = {size: _median_ms(partial(model.run, None, feeds[size]), repeats) for size in batch_sizes}
        return Latency(found, int(model.get_session_options().intra_op_num_threads), "onnxruntime")
    modes = [(module, module.training) for module in model.modules()]
    before = torch.get_num_threads()
    model.eval()
    # One thread by default, so that numbers of machines with different cores compare.
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            batches = {size: {name: _tiled(value, size) for name, value in inputs.items()} for size in batch_sizes}
            found = {size: _median_ms(partial(model, batches[size]), repeats) for size in batch_sizes}
    finally:
        torch.set_num_threads(before)
        for module, mode in modes:
            module.training = mode
    return Latency(found, threads, "eager")


def activation_bytes(compute: Callable[[], Any], *, exclude: Iterable[Tensor] = ()) -> int:
    """Return the bytes that a forward pass holds for the backward pass, counted by saved-tensor hooks.

    Every storage counts once and whole, however many views of it are saved, as memory does.

    Args:
        compute: The forward pass up to the loss; its result is kept alive until the count is done.
        exclude: Tensors whose storages do not count: parameters and buffers (``[*model.parameters(), *model.buffers()]``).

    Example:
        >>> x = torch.ones(10, requires_grad=True)
        >>> activation_bytes(lambda: x.exp().sum())
        40
    """
    # By storage: a transposed weight is saved as a view with the same memory.
    skipped = {tensor.untyped_storage().data_ptr() for tensor in exclude}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skipped:
            kept[storage.data_ptr()] = storage  # holding it keeps its address from being used again
        # Detached: a tensor that a node returned and keeps would hold the node, which holds the tensor, for ever.
        return tensor.detach()

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    total = sum(storage.nbytes() for storage in kept.values())
    del result
    return total
