"""The sparse expert layer, two of sixteen experts a token, beside all experts at once and beside plain Python over tokens and
experts.

``all experts`` multiplies every token with every expert in two batched products and mixes them with the same gates, masked;
``per expert`` runs all sixteen
experts one after another on all tokens, which is quicker on some machines: the faster of both counts. ``per token`` is the
definition written out, token by token and expert by expert, as small examples show it. All have the same weights and outputs.
One thread, CPU seconds, in turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.nn.moe import MoELayer

__all__ = ["per_expert", "per_token", "rows"]

TARGET = 1 / 3
"""Of the time of all experts; 2 / 16 would be perfect."""
EXPERTS, TOP_K = 16, 2


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return a row per size and peer, forward and forward with backward."""
    torch.set_num_threads(1)
    sizes = [(64, 16)] if quick else [(4096, 64), (4096, 192), (1024, 384)]
    found = []
    for tokens, width in sizes:
        for backward in (False, True):
            found += _compare(tokens, width, backward=backward, rounds=3 if quick else 9, seconds=2.0 if quick else 20.0)
    return as_rows(found)


def _compare(num_tokens: int, width: int, *, backward: bool, rounds: int, seconds: float) -> list[Row]:
    torch.manual_seed(0)
    layer = MoELayer(width, width, EXPERTS, TOP_K).eval()
    tokens = torch.randn(num_tokens, width, requires_grad=backward)
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": layer,
        "all experts": lambda inputs: layer.all_experts(inputs, layer.route(inputs)),
        "per expert": lambda inputs: per_expert(layer, inputs),
        "per token": lambda inputs: per_token(layer, inputs),
    }
    with torch.no_grad():
        wanted = functions["ours"](tokens)
        difference = max(float((function(tokens) - wanted).abs().max()) for function in functions.values())

    def step(function: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            if backward:
                tokens.grad = None
                layer.zero_grad(set_to_none=True)
                function(tokens).sum().backward()
            else:
                with torch.inference_mode():
                    function(tokens)

        return run

    timings = take_turns({name: step(function) for name, function in functions.items()}, rounds=rounds, seconds=seconds)
    dense = min(("all experts", "per expert"), key=lambda name: timings[name].median)
    what = f"{num_tokens} tokens, width {width}, {'forward + backward' if backward else 'forward'}"
    return [
        Row(
            benchmark="moe",
            what=f"{what}, beside {beside}",
            ours=timings["ours"].median * 1e3,
            peer=timings[peer].median * 1e3,
            beside=peer,
            ratio=timings["ours"].ratio(timings[peer]),
            unit="ms",
            target=target,
            details={"experts": EXPERTS, "top_k": TOP_K, "largest_difference": difference},
        )
        for beside, peer, target in (("all experts", dense, TARGET), ("plain Python", "per token", None))
    ]


def per_expert(layer: MoELayer, tokens: Tensor) -> Tensor:
    """Return the layer's result from all experts one after another, ``[N, d]``."""
    gates = layer.route(tokens).dense_gates()
    (weight_in, bias_in), (weight_out, bias_out) = layer.expand.stacked(), layer.contract.stacked()
    total = torch.zeros_like(tokens)
    for expert in range(layer.num_experts):
        hidden = F.gelu(torch.addmm(bias_in[expert], tokens, weight_in[expert]))
        total = total + gates[:, expert : expert + 1] * torch.addmm(bias_out[expert], hidden, weight_out[expert])
    return total


def per_token(layer: MoELayer, tokens: Tensor) -> Tensor:
    """Return the layer's result token by token, ``[N, d]``."""
    routing = layer.route(tokens)
    (weight_in, bias_in), (weight_out, bias_out) = layer.expand.stacked(), layer.contract.stacked()
    results = []
    for token, experts, gates in zip(tokens, routing.experts.tolist(), routing.gates, strict=True):
        total = torch.zeros_like(token)
        for expert, gate in zip(experts, gates, strict=True):
            hidden = F.gelu(token @ weight_in[expert] + bias_in[expert])
            total = total + gate * (hidden @ weight_out[expert] + bias_out[expert])
        results.append(total)
    return torch.stack(results)
