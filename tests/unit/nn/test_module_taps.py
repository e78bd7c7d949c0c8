from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.nn.module_taps import find_module, tapped_modules


class Nested(nn.Module):
    """A layer that runs twice, and one whose output is a mapping, as transformers give."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        self.pair = Pair()

    def forward(self, values: Tensor) -> Tensor:
        found: Any = self.pair(self.inner(self.first(self.first(values))))
        return found["states"]


class Pair(nn.Module):
    def forward(self, values: Tensor) -> Any:
        return {"states": 2 * values, "maps": values}


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_outputs_are_read_as_part_of_the_graph_and_hooks_are_gone_afterwards() -> None:
    network, values = Nested(), torch.randn(5, 3)
    plain = network(values)
    with tapped_modules(network, ["first", "inner.0", "pair", "inner.0"]) as found:
        assert hooks(network) == 3
        torch.testing.assert_close(network(values), plain, rtol=0, atol=0)
    assert hooks(network) == 0
    # Of a layer that ran twice the second output counts.
    torch.testing.assert_close(found["first"], network.first(network.first(values)))
    torch.testing.assert_close(found["pair"], plain)
    found["inner.0"].sum().backward()
    assert network.first.weight.grad is not None
    assert network.inner[0].weight.grad is not None


def test_hooks_are_gone_after_an_error_too() -> None:
    network = Nested()
    with pytest.raises(RuntimeError, match="shapes"), tapped_modules(network, ["first"]):
        network(torch.zeros(2, 7))
    with pytest.raises(ConfigError, match="no module 'inner.7'"), tapped_modules(network, ["first", "inner.7"]):
        pass
    assert hooks(network) == 0


def test_a_wrong_path_is_answered_with_near_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"no module 'iner'. Did you mean 'inner'\? Its modules: inner, inner.1, inner.0, first, pair"
    ):
        find_module(Nested(), "iner")
    assert find_module(network := Nested(), "") is network


def test_an_output_without_tensors_is_refused() -> None:
    class Words(nn.Module):
        def forward(self, values: Tensor) -> str:
            return "words"

    network = nn.Sequential(Words())
    with pytest.raises(ConfigError, match="'0' gives str, which holds no tensor"), tapped_modules(network, ["0"]):
        network(torch.zeros(1))
