"""Dropout of a share of a batch, drawn as for the whole batch: a row gets the mask that it has when one process trains alone.

Only trainings over several processes come here. All processes go on with the same generator: each draws the masks of all rows, keeps
those of its own, and so stays at the place in the stream at which one process would be. Whoever trains in one process draws as ever.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["WholeBatchDraws"]

_DROPOUT = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
_OTHER = {
    torch.bernoulli,
    torch.multinomial,
    torch.normal,
    torch.rand,
    torch.rand_like,
    torch.randn,
    torch.randn_like,
    Tensor.bernoulli_,
    Tensor.exponential_,
    Tensor.multinomial,
    Tensor.normal_,
    Tensor.uniform_,
    F.alpha_dropout,
    F.feature_alpha_dropout,
    F.gumbel_softmax,
}
"""Draws of other kinds: each process makes its own where they have rows, and says so once."""


class WholeBatchDraws(TorchFunctionMode):
    """While it is entered, dropout on tensors whose first dimension are the rows of a share is drawn for all rows.

    Rows that were flattened with what follows them (``[B * length, width]``) count as well. Dropout on a tensor without rows
    (weights, say) is drawn as it is: equal in all processes.

    Args:
        own: Rows of this process' share, at least 1.
        whole: Rows of the whole batch, the same number in all processes.
        share: Which of the whole batch's rows are this process' own.
        warned: What was warned of before; what is warned of is added.
    """

    def __init__(self, own: int, whole: int, share: slice, warned: set[str]) -> None:
        super().__init__()
        self.own, self.whole, self.share, self.warned = own, whole, share, warned

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUT:
            return self._dropout(func, *args, **kwargs)
        result = func(*args, **kwargs)
        is_attention = func is F.scaled_dot_product_attention
        if func in _OTHER or (is_attention and (kwargs.get("dropout_p") or (len(args) > 4 and args[4]))):
            # What is drawn without rows is the same in all processes, and in one.
            has_rows = isinstance(result, Tensor) and result.dim() > 0 and len(result) > 0 and len(result) % self.own == 0
            if has_rows:
                self._warn(getattr(func, "__name__", str(func)))
        return result

    def _dropout(
        self, func: Callable[..., Tensor], input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        per_row, rest = divmod(input.shape[0], self.own) if input.dim() else (0, 1)
        if not training or p == 0 or rest or per_row == 0:
            return func(input, p, training, inplace)
        # As the input lies in memory: a mask is drawn in that order.
        order = sorted(range(input.dim()), key=lambda axis: input.stride()[axis], reverse=True)
        sizes = (self.whole * per_row, *input.shape[1:])
        ones = input.new_ones([sizes[axis] for axis in order]).permute([order.index(axis) for axis in range(input.dim())])
        mask = func(ones, p, True)
        rows = mask.unflatten(0, (self.whole, per_row))[self.share][: self.own].flatten(0, 1)
        return input.mul_(rows) if inplace else input * rows

    def _warn(self, name: str) -> None:
        if name in self.warned:
            return
        self.warned.add(name)
        warnings.warn(
            f"The model draws random numbers by `{name}` in its forward pass, in each process for its own rows: the numbers of this "
            "training are not those of one process, nor of another number of processes. (Dropout layers are drawn for the whole "
            "batch and do equal one process.)",
            RuntimeWarning,
            stacklevel=3,
        )
