"""The schedule expert by expert: the same numbers, two experts in memory."""

from __future__ import annotations

from pathlib import Path

import torch

from graftwork.nn.moe import MoELayer
from graftwork.nn.moe_queue import ExpertMeter, expert_bytes, expert_queues, loads_in_token_order


def build(num_experts: int = 8) -> tuple[MoELayer, torch.Tensor]:
    torch.manual_seed(0)
    return MoELayer(16, 12, num_experts, 2).eval(), torch.randn(5, 20, 16)


def test_results_are_equal_and_at_most_two_experts_are_resident(tmp_path: Path) -> None:
    layer, tokens = build()
    plain = layer(tokens)
    with expert_queues([layer], tmp_path) as meter:
        queued = layer(tokens)
    assert torch.equal(queued, plain)
    # Two while the next one loads beside the one that works; one where the loading thread is late.
    assert meter.peak in (expert_bytes(layer), 2 * expert_bytes(layer))
    assert expert_bytes(layer) == 4 * (16 * 12 + 12 + 12 * 16 + 16)
    assert meter.loads == 8, "each expert comes once"
    assert meter.resident == 0
    assert torch.equal(layer(tokens), plain), "the layer is its own again"


def test_the_layers_own_weights_are_not_read(tmp_path: Path) -> None:
    layer, tokens = build()
    plain = layer(tokens)
    with expert_queues([layer], tmp_path):
        for bank in layer.banks():
            torch.nn.init.constant_(bank.weights[0], float("nan"))
        torch.testing.assert_close(layer(tokens), plain)


def test_experts_without_tokens_are_not_fetched(tmp_path: Path) -> None:
    layer, _ = build()
    tokens = torch.randn(1, 1, 16)
    with expert_queues([layer], tmp_path) as meter:
        layer(tokens)
        assert meter.loads == 2
        assert layer(torch.zeros(0, 16)).shape == (0, 16)
        assert meter.loads == 2


def test_one_expert_alone_has_no_follower(tmp_path: Path) -> None:
    layer, tokens = build(1)
    with expert_queues([layer], tmp_path) as meter:
        torch.testing.assert_close(layer(tokens), layer.run_experts(tokens.flatten(0, 1), [100]).view(tokens.shape))
    assert meter.peak == expert_bytes(layer)


def test_the_meter_keeps_the_highest() -> None:
    meter = ExpertMeter()
    meter.acquire(3)
    meter.acquire(4)
    meter.release(3)
    meter.acquire(1)
    assert (meter.resident, meter.peak, meter.loads) == (5, 7, 3)


def test_token_order_fetches_again_what_had_to_leave() -> None:
    chosen = torch.tensor([[0, 1], [0, 1], [2, 0], [1, 2]])
    # room for two: 0, 1 come; then 2 takes the place of 0 (oldest use), 0 that of 1, 1 that of 2, 2 that of 0
    assert loads_in_token_order(chosen, resident=2) == 6
    assert loads_in_token_order(chosen, resident=3) == 3
    assert loads_in_token_order(chosen, resident=1) == 8
