"""Expert by expert: only the weights of the expert at work and of the next one are in memory; the result is that of the layer.

All gates are known first, so every expert has a queue of tokens. The experts are visited once: its weights are fetched, its
whole queue is computed, its weights are given back; while one computes, the next one is fetched (double buffer). Token by token,
by contrast, a memory of two experts would fetch weights again and again, and keeping all of them resident is what the schedule
avoids.

Paper: Liang et al., "M3ViT", https://arxiv.org/abs/2210.14793, where the slow store is the memory outside of an FPGA. Here it is
a safetensors file, mapped and read expert by expert.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.tensor_files import TensorSource, open_tensors, write_tensors
from graftwork.nn.moe import MoELayer

__all__ = ["ExpertMeter", "ExpertQueue", "expert_bytes", "expert_queues", "loads_in_token_order", "write_experts"]

_PARTS = ("expand.weight", "expand.bias", "contract.weight", "contract.bias")


@dataclass(slots=True)
class ExpertMeter:
    """Bytes of expert weights that are resident, and how often an expert was fetched."""

    resident: int = 0
    peak: int = 0
    """Most bytes that were resident at any moment."""
    loads: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def acquire(self, size: int) -> None:
        """Count an expert that comes in."""
        with self._lock:
            self.resident += size
            self.peak = max(self.peak, self.resident)
            self.loads += 1

    def release(self, size: int) -> None:
        """Count an expert that leaves."""
        with self._lock:
            self.resident -= size


def expert_bytes(layer: MoELayer) -> int:
    """Return the bytes of one expert's weights: what a layer keeps resident is this times the number of experts."""
    return sum(
        parameter[0].numel() * parameter.element_size()
        for bank in layer.banks()
        for parameter in (bank.weights[0], bank.biases[0])
    )


def write_experts(layer: MoELayer, path: str | Path) -> None:
    """Write a layer's experts into a safetensors file, tensors named ``<expert>.expand.weight`` and so on."""
    tensors = [tensor.detach().cpu() for bank in (layer.expand, layer.contract) for tensor in bank.stacked()]
    named = {
        f"{expert}.{part}": tensor[expert].numpy()
        for expert in range(layer.num_experts)
        for part, tensor in zip(_PARTS, tensors, strict=True)
    }
    write_tensors(path, {name: ("F32", array.shape) for name, array in named.items()}, named.items())


class ExpertQueue:
    """Runs rows sorted by expert through experts that lie in a file; for evaluation, without gradients.

    Args:
        source: What :func:`write_experts` wrote.
        meter: Called for every expert that comes and goes.
    """

    def __init__(self, source: TensorSource, meter: ExpertMeter) -> None:
        self._source, self._meter = source, meter

    def __call__(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return ``[R, d]`` for rows ``[R, d]``; experts with an empty queue are not fetched."""
        busy = [expert for expert, count in enumerate(counts) if count]
        groups = dict(enumerate(rows.split(list(counts))))
        results = []
        with ThreadPoolExecutor(max_workers=1) as pool:
            # One worker: at most one expert is on its way while another computes, so two are resident.
            coming = [pool.submit(self._fetch, expert) for expert in busy[:1]]
            for position, expert in enumerate(busy):
                weights = coming.pop().result()
                coming += [pool.submit(self._fetch, following) for following in busy[position + 1 : position + 2]]
                expand, expand_bias, contract, contract_bias = (part.to(rows.device) for part in weights)
                hidden = F.gelu(torch.addmm(expand_bias, groups[expert], expand))
                results.append(torch.addmm(contract_bias, hidden, contract))
                self._meter.release(_size(weights))
        # Groups follow the order of the experts, so the results are in the order of the rows.
        return torch.cat(results) if results else rows

    def _fetch(self, expert: int) -> list[Tensor]:
        # A copy: the mapped pages are not memory that is owned and counted.
        weights = [torch.from_numpy(self._source[f"{expert}.{part}"].copy()) for part in _PARTS]
        self._meter.acquire(_size(weights))
        return weights


@contextlib.contextmanager
def expert_queues(layers: Sequence[MoELayer], folder: str | Path) -> Iterator[ExpertMeter]:
    """Run some layers expert by expert inside the block, from files in ``folder``; the layers' own experts are not read.

    Yields:
        One meter for all layers.
    """
    meter = ExpertMeter()
    for index, layer in enumerate(layers):
        path = Path(folder) / f"experts-{index}.safetensors"
        write_experts(layer, path)
        layer.runner = ExpertQueue(open_tensors(path), meter)
    try:
        with torch.no_grad():
            yield meter
    finally:
        for layer in layers:
            layer.runner = None


def loads_in_token_order(experts: Tensor, *, resident: int = 2) -> int:
    """Return how often experts would be fetched if tokens were computed one after another with room for ``resident`` experts.

    The expert that was not used for the longest time makes room. For comparison with :attr:`ExpertMeter.loads`; never part of a
    forward pass.

    Args:
        experts: Chosen experts, int64 ``[N, k]``.
        resident: Experts that fit, at least 1.

    Example:
        >>> loads_in_token_order(torch.tensor([[0], [1], [2], [0]]), resident=2)
        4
    """
    held: list[int] = []
    loads = 0
    for expert in experts.flatten().tolist():
        if expert in held:
            held.remove(expert)
        else:
            loads += 1
            # The front was not used for the longest time.
            del held[: max(0, len(held) - resident + 1)]
        held.append(expert)
    return loads


def _size(weights: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in weights)
