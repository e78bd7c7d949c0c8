from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from graftwork.core.errors import ConfigError
from graftwork.nn.slimmable import SlimmableConv2d, SlimmableLinear, SwitchableNorm, active_channels, materialise

RATIOS = (0.25, 0.5, 0.75, 1.0)


def network(kind: str = "group") -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        SlimmableConv2d(3, 16, 3, padding=1, slim_in=False),
        SwitchableNorm(16, RATIOS, kind=kind),
        nn.ReLU(),
        SlimmableConv2d(16, 32, 3, stride=2, padding=1, bias=False),
        SwitchableNorm(32, RATIOS, kind=kind),
        nn.ReLU(),
        SlimmableConv2d(32, 5, 1, slim_out=False),
    )


def set_all(module: nn.Module, ratio: float) -> None:
    for part in module.modules():
        if hasattr(part, "set_active_width"):
            part.set_active_width(ratio)


@given(st.integers(1, 300), st.floats(0.01, 1.0))
def test_used_channels_are_the_floor_of_the_share(channels: int, ratio: float) -> None:
    found = active_channels(channels, ratio)
    assert 1 <= found <= channels
    assert found == max(1, math.floor(ratio * channels)) or abs(ratio * channels - found) < 1e-6


def test_a_product_just_below_a_whole_number_counts_as_it() -> None:
    assert 0.07 * 100 != 7.0
    assert active_channels(100, 0.07) == 7


def test_convolution_by_hand() -> None:
    layer = SlimmableConv2d(2, 4, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]).view(4, 2, 1, 1))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    one, both = torch.tensor([1.0]).view(1, 1, 1, 1), torch.tensor([1.0, 1.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(layer(both).flatten(), torch.tensor([11.1, 22.2, 33.3, 44.4]))
    layer.set_active_width(0.5)
    torch.testing.assert_close(layer(one).flatten(), torch.tensor([1.1, 2.2]))
    layer.set_active_width(0.75, in_ratio=1.0)
    torch.testing.assert_close(layer(both).flatten(), torch.tensor([11.1, 22.2, 33.3]))


def test_linear_by_hand() -> None:
    layer = SlimmableLinear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 10.0], [2.0, 20.0]]))
    layer.set_active_width(0.5)
    assert layer(torch.tensor([[3.0]])).tolist() == [[3.0]]
    layer.set_active_width(1.0, in_ratio=0.5)
    assert layer(torch.tensor([[3.0]])).tolist() == [[3.0, 6.0]]


@pytest.mark.parametrize("kind", ["group", "batch"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("training", [False, True])
def test_the_slice_computes_exactly_the_same(kind: str, ratio: float, training: bool) -> None:
    net = network(kind).train(training)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    set_all(net, ratio)
    before = torch.get_rng_state()
    plain = materialise(net)
    assert torch.equal(torch.get_rng_state(), before), "slicing draws no random number"
    assert not any(hasattr(part, "set_active_width") for part in plain.modules())
    picture = torch.randn(4, 3, 12, 12)
    assert torch.equal(plain(picture), net(picture))
    shared = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    assert not shared & {parameter.untyped_storage().data_ptr() for parameter in plain.parameters()}


def test_operations_of_the_slice_go_as_the_product_of_both_widths() -> None:
    def count(ratio: float) -> int:
        net, counter = network(), FlopCounterMode(display=False)
        set_all(net, ratio)
        with counter:
            materialise(net)(torch.zeros(1, 3, 8, 8))
        return counter.get_total_flops()

    def by_hand(first: int, second: int) -> int:
        return 2 * (64 * 9 * 3 * first + 16 * 9 * first * second + 16 * second * 5)

    assert count(1.0) == by_hand(16, 32)
    assert count(0.5) == by_hand(8, 16)
    assert count(0.25) == by_hand(4, 8)


def test_narrow_weights_are_a_part_of_wide_ones() -> None:
    net = network()
    set_all(net, 0.5)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    kernel = net[3].weight
    assert kernel.grad is not None
    assert bool(kernel.grad[:16, :8].any())
    assert not kernel.grad[16:].any()
    assert not kernel.grad[:, 8:].any()


def test_each_width_keeps_statistics_of_its_own() -> None:
    norm = SwitchableNorm(8, (0.5, 1.0), kind="batch").train()
    norm.set_active_width(0.5)
    norm(5.0 + torch.randn(64, 4, 2, 2))
    narrow, wide = norm.norms
    assert float(narrow.running_mean.mean()) > 0.3
    assert not wide.running_mean.any()


def test_layer_norm_takes_vectors() -> None:
    norm = SwitchableNorm(8, (0.5, 1.0), kind="layer")
    norm.set_active_width(0.5)
    found = norm(torch.randn(3, 4))
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(3), atol=1e-6, rtol=0)
    assert isinstance(norm.slice(), nn.LayerNorm)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1; got 0"):
        active_channels(8, 0.0)
    with pytest.raises(ConfigError, match="no norm for width 0.3"):
        SwitchableNorm(8, (0.5, 1.0)).set_active_width(0.3)
    with pytest.raises(ConfigError, match="6 channels are no whole groups of 4"):
        SwitchableNorm(12, (0.5, 1.0))
    with pytest.raises(ConfigError, match="group, layer or batch; got 'instance'"):
        SwitchableNorm(8, (1.0,), kind="instance")


@pytest.mark.parametrize("learns", [True, False])
def test_a_plain_layer_learns_what_the_slimmable_one_does(learns: bool) -> None:
    for layer in (SlimmableConv2d(4, 8, 3), SlimmableLinear(4, 8)):
        layer.requires_grad_(not learns)
        layer.weight.requires_grad_(learns)
        layer.set_active_width(0.5)
        plain = materialise(layer)
        assert plain.weight.requires_grad is learns
        assert plain.bias.requires_grad is not learns
