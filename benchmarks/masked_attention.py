"""MultiTab-Net's masked attention beside the same computation by hand on ``scaled_dot_product_attention`` with a dense mask.

Both use the same weights, inputs and mask (``TxT``: no task token reads another one) and their outputs are compared. The
reference takes the mask as booleans, as users write it, and as an additive matrix; the faster one counts. One thread, CPU
seconds, in turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.methods.sharing.multitab import task_mask
from graftwork.nn.attention import SelfAttention

__all__ = ["rows"]

TARGET = 1.10
HEADS = 4


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return a row per size, forward and forward with backward."""
    torch.set_num_threads(1)
    batch = 8 if quick else 512
    sizes = [(5, 16, 16)] if quick else list(itertools.product((5, 32), (16, 64), (16, 64)))
    return as_rows(
        [
            _compare(
                batch,
                *size,
                backward=backward,
                rounds=3 if quick else 15,
                seconds=2.0 if quick else 8.0,
                entries=10_000 if quick else 2_000_000,
            )
            for size in sizes
            for backward in (False, True)
        ]
    )


def _compare(
    batch: int, tasks: int, features: int, width: int, *, backward: bool, rounds: int, seconds: float, entries: int
) -> Row:
    torch.manual_seed(0)
    blocked = task_mask(tasks, features, "TxT")
    assert blocked is not None
    module = SelfAttention(width, HEADS, blocked=blocked)
    states = torch.randn(batch, tasks + features, width, requires_grad=backward)
    additive = torch.zeros(blocked.shape).masked_fill(blocked, float("-inf"))
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": module,
        "boolean": lambda inputs: by_hand(module, inputs, ~blocked),
        "additive": lambda inputs: by_hand(module, inputs, additive),
    }
    with torch.no_grad():
        difference = max(float((module(states) - functions[name](states)).abs().max()) for name in ("boolean", "additive"))
    repeats = max(1, entries // (batch * (tasks + features) * width))
    gradient = torch.ones_like(states)

    def step(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                if backward:
                    states.grad = None
                    module.zero_grad(set_to_none=True)
                    function(states).backward(gradient)
                else:
                    with torch.inference_mode():
                        function(states)

        return run

    timings = take_turns({name: step(function) for name, function in functions.items()}, rounds=rounds, seconds=seconds)
    peer = min(("boolean", "additive"), key=lambda name: timings[name].median)
    return Row(
        benchmark="masked_attention",
        what=f"{tasks} tasks, {features} features, width {width}, {'forward + backward' if backward else 'forward'}",
        ours=timings["ours"].median / repeats * 1e3,
        peer=timings[peer].median / repeats * 1e3,
        beside=f"{peer} mask",
        ratio=timings["ours"].ratio(timings[peer]),
        unit="ms",
        target=TARGET,
        details={
            "batch": batch,
            "heads": HEADS,
            "largest_difference": difference,
            **{f"{name}_minimum_ms": timing.minimum / repeats * 1e3 for name, timing in timings.items()},
        },
    )


def by_hand(module: SelfAttention, states: Tensor, mask: Tensor) -> Tensor:
    """Return what :class:`~graftwork.nn.attention.SelfAttention` computes, from its weights, ``[B, L, width]``."""
    batch, length, width = states.shape
    projected = F.linear(states, module.project.weight, module.project.bias)
    query, key, value = (
        part.view(batch, length, module.num_heads, width // module.num_heads).transpose(1, 2)
        for part in projected.chunk(3, dim=-1)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return F.linear(mixed.transpose(1, 2).reshape(batch, length, width), module.output.weight, module.output.bias)
