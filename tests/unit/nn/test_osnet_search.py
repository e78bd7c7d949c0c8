"""The search for the placement of instance norms: its weights, its noise, its temperature, its end."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.osnet import OSNet
from graftwork.nn.backbones.osnet_search import CANDIDATES, OSNetSearch, SearchableBlock, temperature_at
from graftwork.training.config import LoopConfig
from graftwork.training.optimizers import build_optimizer

SMALL = {"widths": (4, 8, 8, 8), "depths": (1, 1, 1), "feature_width": 6, "stem": "small"}


def network() -> OSNetSearch:
    torch.manual_seed(0)
    return OSNetSearch(**SMALL)


def test_weights_are_the_softmax_of_log_pi_without_noise_in_evaluation() -> None:
    block = SearchableBlock(4, 8).eval()
    block.pi.data = torch.tensor([1.0, 2.0, 3.0, 2.0])
    torch.testing.assert_close(block.weights(), torch.tensor([1.0, 2.0, 3.0, 2.0]) / 8)
    block.temperature = 0.5
    torch.testing.assert_close(block.weights(), torch.tensor([1.0, 4.0, 9.0, 4.0]) / 18)
    assert torch.equal(block.weights(), block.weights())


def test_noise_is_fresh_in_every_pass_and_draws_candidates_as_often_as_pi_says() -> None:
    block = SearchableBlock(4, 8)
    block.pi.data = torch.tensor([1.0, 2.0, 3.0, 2.0])
    torch.manual_seed(0)
    drawn = torch.stack([block.weights() for _ in range(4000)])
    assert len(drawn.unique(dim=0)) == len(drawn)
    shares = torch.bincount(drawn.argmax(dim=1), minlength=4) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([1.0, 2.0, 3.0, 2.0]) / 8, atol=0.03, rtol=0.0)


def test_a_weight_below_zero_is_dead_and_stays_dead() -> None:
    block = SearchableBlock(4, 8).eval()
    block.pi.data = torch.tensor([1.0, -0.5, 1.0, 0.0])
    weights = block.weights()
    assert weights.tolist() == pytest.approx([0.5, 0.0, 0.5, 0.0], abs=1e-6)
    weights[0].backward()
    assert block.pi.grad is not None
    assert block.pi.grad[1] == 0.0


def test_a_hot_mixture_is_even_and_a_cold_one_is_a_choice() -> None:
    block = SearchableBlock(4, 8)
    torch.manual_seed(0)
    spread = []
    for temperature in (100.0, 0.05):
        block.temperature = temperature
        spread.append(float(torch.stack([block.weights().detach().amax() for _ in range(200)]).mean()))
    assert spread[0] < 0.3
    assert spread[1] > 0.9


def test_the_output_is_the_weighted_sum_of_the_candidates() -> None:
    torch.manual_seed(0)
    block = SearchableBlock(4, 8).eval()
    block.pi.data = torch.tensor([0.5, 0.0, 1.5, 2.0])
    state = torch.randn(2, 4, 5, 5)
    expected = sum(weight * candidate(state) for weight, candidate in zip(block.weights(), block.candidates, strict=True))
    torch.testing.assert_close(block(state), expected)


def test_pi_does_not_decay_and_norms_learn_nothing() -> None:
    model = network()
    optimizer = build_optimizer(model, [], LoopConfig(weight_decay=0.5))
    spared = {id(item) for group in optimizer.param_groups if group["weight_decay"] == 0.0 for item in group["params"]}
    decayed = {id(item) for group in optimizer.param_groups if group["weight_decay"] > 0.0 for item in group["params"]}
    for block in model.searched():
        assert id(block.pi) in spared
        assert id(block.candidates[0].squeeze[0].weight) in decayed  # type: ignore[union-attr, index]
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.InstanceNorm2d)]
    assert norms
    assert not any(parameter.requires_grad for module in norms for parameter in module.parameters())


def test_pi_learns() -> None:
    model = network()
    model({"image": torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)}).square().sum().backward()
    assert all(bool((block.pi.grad != 0).any()) for block in model.searched())  # type: ignore[union-attr]


def test_the_end_is_the_largest_pi_and_builds_a_network() -> None:
    model = network()
    for block, chosen in zip(model.searched(), (2, 0, 3), strict=True):
        block.pi.data = torch.full((4,), 0.2)
        block.pi.data[chosen] = 0.3
    assert model.placement() == tuple(CANDIDATES[chosen] for chosen in (2, 0, 3))
    assert isinstance(model.stem[1], nn.InstanceNorm2d)
    OSNet(placement=model.placement(), stem_norm="instance", **SMALL)  # type: ignore[arg-type]


def test_the_temperature_is_that_of_all_blocks_and_above_zero() -> None:
    model = network()
    model.set_temperature(2.5)
    assert [block.temperature for block in model.searched()] == [2.5] * 3
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="temperature of the search must be above 0"):
            model.set_temperature(wrong)


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_temperature_falls_from_ten_to_one(first: float, second: float) -> None:
    early, late = sorted((first, second))
    assert 10.0 >= temperature_at(early) >= temperature_at(late) >= 1.0
