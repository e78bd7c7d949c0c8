from __future__ import annotations

import pytest
import torch
from small_runs import assert_equal_weights, small_model, small_suite, small_trainer, weights_of
from torch import nn

from graftwork.training.costs import CostMeter, held_for_backward, inference_costs

SUITE = small_suite()


def test_costs_add_up_also_when_the_block_fails() -> None:
    meter = CostMeter()
    with meter.running():
        sum(range(100_000))
    first = meter.state_dict()
    with pytest.raises(RuntimeError), meter.running():
        raise RuntimeError
    assert meter.wall_seconds > first["wall_seconds"] > 0
    assert meter.cpu_seconds >= first["cpu_seconds"] > 0
    assert meter.peak_rss_bytes > 10_000_000
    other = CostMeter()
    other.load_state_dict(meter.state_dict())
    assert other.state_dict() == meter.state_dict()


def test_what_is_held_grows_with_the_batch_and_nothing_else_changes() -> None:
    model = small_model(SUITE)
    model.backbone.trunk.norm = nn.BatchNorm1d(16)  # type: ignore[union-attr]
    before, state = weights_of(model), torch.get_rng_state()
    stream = small_trainer(SUITE).stream
    rows = SUITE.splits["train"]
    small, large = (held_for_backward(model, stream.source.batch(rows[:count])) for count in (8, 64))
    assert 4 * small < large < 16 * small
    assert_equal_weights(before, weights_of(model))
    assert torch.equal(state, torch.get_rng_state())


def test_a_frozen_trunk_holds_less() -> None:
    batch = small_trainer(SUITE).stream.batch(0)
    model = small_model(SUITE, dropout=0.0)
    whole = held_for_backward(model, batch)
    for parameter in model.shared_parameters():
        parameter.requires_grad_(False)
    assert held_for_backward(model, batch) < whole


def test_the_costs_of_a_prediction() -> None:
    batch = small_trainer(SUITE).stream.source.batch(SUITE.splits["train"][:1])
    found = inference_costs(small_model(SUITE), batch.inputs, threads=1)
    assert found["flops_per_sample"] > 2 * 16 * 64
    assert found["latency_ms_batch1"] > 0
