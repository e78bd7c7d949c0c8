"""Adapters between torchjd's aggregator objects and ours: what they are shown, and how their memory is saved."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graftwork.core.errors import CheckpointError
from graftwork.math.gramian import square_root
from graftwork.methods.optimization.aggregator import PlainAggregator, WeightedAggregator

__all__ = ["TorchJDFunction", "TorchJDWeights", "load_memory", "save_memory"]


class TorchJDWeights(WeightedAggregator):
    """A torchjd ``WeightedAggregator``: it gives the weights, the rows are summed here.

    Args:
        aggregator: The torchjd object.
        shown: ``gramian``; ``root``, for weightings that take a matrix but look only at its inner products (they get a ``[T,
            T]`` matrix with the same ones); or ``matrix``, the gradients themselves.
        scale_free: Whether weights do not depend on the scale of the gradients, so that the inner products may be divided by
            their trace.
        skips_absent: See :class:`~graftwork.methods.optimization.aggregator.WeightedAggregator`.
        least_length: Rows shorter than this share of the longest count as zero, and the weights of the others are computed
            without them, as shares of all rows.
        keeps_weights: Whether a step in which a task has no labels reuses the last weights, because the method has no answer for
            a zero row.
    """

    def __init__(
        self,
        aggregator: Any,
        shown: Literal["gramian", "root", "matrix"],
        *,
        scale_free: bool = False,
        skips_absent: bool = True,
        least_length: float = 0.0,
        keeps_weights: bool = False,
    ) -> None:
        self.aggregator = aggregator
        self.statistic = "matrix" if shown == "matrix" else "gramian"
        self.skips_absent = skips_absent
        self._weighting = getattr(aggregator, "gramian_weighting", aggregator.weighting)
        self._shown = shown
        self._scale_free, self._least_length = scale_free, least_length
        self._keeps_weights = keeps_weights
        self._last: Tensor | None = None

    def weigh(self, statistic: Tensor, present: Tensor) -> Tensor:
        """Return the weights ``[T]``."""
        if self._keeps_weights and not bool(present.all()):
            known = self._last is not None and len(self._last) == len(statistic)
            last = self._last.to(statistic.dtype) if known and self._last is not None else statistic.new_ones(len(statistic))
            # The kept weights of absent tasks are 0 for this step only: `_last` is not overwritten.
            return last * present
        self._last = super().weigh(statistic, present)
        return self._last

    def weights(self, statistic: Tensor) -> Tensor:
        """Return torchjd's weights ``[T]``."""
        num_tasks = len(statistic)
        if getattr(self.aggregator, "n_tasks", num_tasks) != num_tasks:  # NashMTL is told the number of tasks in advance
            self.aggregator.n_tasks = num_tasks
            self.aggregator.reset()
        if self._shown == "root":
            with warnings.catch_warnings():  # cvxpy warns at every solve that the problem is compiled anew
                warnings.simplefilter("ignore", UserWarning)
                return torch.as_tensor(self._weighting(square_root(statistic)))
        if not self._least_length:
            return self._ask(statistic)
        squares = statistic.diagonal()
        # Squares on both sides: the diagonal holds squared lengths.
        kept = squares > self._least_length**2 * squares.max()
        weights = torch.zeros_like(squares)
        if bool(kept.any()):
            # The answer for fewer tasks averages over fewer; the factor makes it a share of all of them again.
            weights[kept] = self._ask(statistic[kept][:, kept]) * (kept.sum() / num_tasks)
        return weights

    def _ask(self, statistic: Tensor) -> Tensor:
        if self._scale_free:
            trace = statistic.diagonal().sum()
            # All rows zero: divided by 1 rather than 0.
            statistic = statistic / torch.where(trace > 0, trace, torch.ones_like(trace))
        return torch.as_tensor(self._weighting(statistic))

    def reset(self) -> None:
        """Forget what past steps left."""
        self._last = None
        _reset(self.aggregator)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the method."""
        memory = save_memory(self.aggregator)
        return memory if self._last is None or not self._keeps_weights else {**memory, "last_weights": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.reset()
        self._last = state.get("last_weights")
        load_memory(self.aggregator, state)


class TorchJDFunction(PlainAggregator):
    """A torchjd aggregator that is no weighted sum of rows (GradDrop, TrimmedMean)."""

    def reset(self) -> None:
        """Forget what past steps left."""
        _reset(self.function)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory of the method."""
        return save_memory(self.function)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        load_memory(self.function, state)


MEMORY_FIELDS = ("_n_steps", "_state_key", "step", "prvs_alpha")
"""Attributes beside buffers in which torchjd's stateful objects keep their memory."""


def _reset(aggregator: Any) -> None:
    reset = getattr(aggregator, "reset", None)  # torchjd's stateful aggregators have one
    if reset is not None:
        reset()


def save_memory(aggregator: Any) -> dict[str, Any]:
    """Return the memory of a torchjd object: tensors, and JSON values for the rest, by dotted name."""
    memory: dict[str, Any] = {}
    for path, module in _modules(aggregator):
        for name, buffer in module._buffers.items():
            if buffer is not None:
                memory[f"{path}{name}"] = buffer.clone()
        for name in MEMORY_FIELDS:
            value = vars(module).get(name)
            if value is not None:
                memory[f"{path}{name}"] = _encode(value)
    return memory


def load_memory(aggregator: Any, memory: dict[str, Any]) -> None:
    """Restore :func:`save_memory`."""
    for path, module in _modules(aggregator):
        for name in module._buffers:
            saved = memory.get(f"{path}{name}")
            setattr(module, name, None if saved is None else saved.clone())
        # NashMTL: its solver's problem is built from the number of tasks, then goes on from the last weights; with one it was
        # never called.
        if len(memory.get(f"{path}prvs_alpha", ())) > 1:
            module.prvs_alpha = memory[f"{path}prvs_alpha"].numpy().copy()
            module.n_tasks = len(module.prvs_alpha)
            # _init_optim_problem reads this attribute, and a fresh object has it for one task.
            module.init_gtg = torch.eye(len(memory[f"{path}prvs_alpha"])).numpy()
            module._init_optim_problem()
        for name in MEMORY_FIELDS:
            if name != "prvs_alpha" and f"{path}{name}" in memory:
                setattr(module, name, _decode(memory[f"{path}{name}"]))


def _modules(aggregator: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    if isinstance(aggregator, nn.Module):
        found = [(f"{path}." if path else "", module) for path, module in aggregator.named_modules()]
    return found


def _encode(value: Any) -> Any:
    if isinstance(value, (torch.dtype, torch.device)):
        return f"{type(value).__name__}:{str(value).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    return value if isinstance(value, (int, float, str, Tensor)) else torch.as_tensor(value).clone()


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    if isinstance(value, str):
        kind, _, name = value.partition(":")
        if kind == "device":
            return torch.device(name)
        dtype = getattr(torch, name, None) if kind == "dtype" else None
        if not isinstance(dtype, torch.dtype):  # a damaged checkpoint must not name anything else of torch
            raise CheckpointError(f"The checkpoint of the aggregator holds {value!r} in place of a tensor, a type or a device.")
        return dtype
    return value
