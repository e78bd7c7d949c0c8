"""Counts floating-point operations by torch's own formulas, without importing the compiler that its counter asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

__all__ = ["FlopCount"]


class FlopCount(TorchDispatchMode):
    """Counts the operations of everything that is computed inside of ``with``; :attr:`total` is their sum, multiply and add two.

    ``torch.utils.flop_counter.FlopCounterMode`` gives the same number. It imports ``torch._dynamo`` first, which takes as long as
    torch itself, and counts for each module besides.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled in here, so that no compiler has to be told to keep out.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Compute an operation and count it, or the operations that it is made of."""
        named = dict(kwargs or {})
        packet = func._overloadpacket
        if packet not in flop_registry and func is not torch.ops.prim.device.default:
            with self:
                made = func.decompose(*args, **named)
            if made is not NotImplemented:
                return made
        out = func(*args, **named)
        if packet in flop_registry:
            self.total += flop_registry[packet](*args, **named, out_val=out)
        return out
