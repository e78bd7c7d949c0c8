from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.changed_weights import ChangedWeights
from graftwork.nn.foldable import fold_layers, plain_state


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def test_it_computes_with_base_start_and_change() -> None:
    start = torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 1.0]])
    layer = ChangedWeights(linear(), {"weight": torch.tensor([1, 5]), "bias": None}, start={"weight": start})
    with torch.no_grad():
        layer.changes["weight"].copy_(torch.tensor([2.0, 3.0]))
        layer.changes["bias"].add_(0.25)
    weight = linear().weight + start + torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    inputs = torch.randn(4, 3)
    torch.testing.assert_close(layer(inputs), inputs @ weight.T + linear().bias + 0.25)
    torch.testing.assert_close(layer.weight, weight)
    torch.testing.assert_close(nn.Sequential(layer).eval()(inputs), layer(inputs))
    model = nn.Sequential(copy.deepcopy(layer))
    fold_layers(model)
    torch.testing.assert_close(model(inputs), layer(inputs), rtol=0, atol=0)


def test_only_changes_learn_and_plain_names_give_the_base() -> None:
    model = nn.Sequential(ChangedWeights(linear(), {"weight": torch.tensor([0])}))
    assert [item.numel() for item in model.parameters() if item.requires_grad] == [1]
    model(torch.ones(1, 3)).sum().backward()
    gradient = model.get_parameter("0.changes.weight").grad
    assert gradient is not None
    assert gradient.tolist() == [1.0]
    assert {name: torch.equal(tensor, linear().state_dict()[name[2:]]) for name, tensor in plain_state(model).items()} == {
        "0.weight": True,
        "0.bias": True,
    }


def test_embeddings_and_layers_without_a_bias_are_changed_too() -> None:
    words = ChangedWeights(nn.Embedding(4, 2), {"weight": torch.tensor([2, 3])}, begin={"weight": torch.ones(4, 2)})
    torch.testing.assert_close(words(torch.tensor([1])), words.origin("weight")[1:2] + 1.0)
    layer = ChangedWeights(nn.Linear(2, 2, bias=False), {"weight": None})
    assert layer.bias is None
    assert layer(torch.ones(1, 2)).shape == (1, 2)


def test_places_outside_are_refused() -> None:
    with pytest.raises(ConfigError, match="from 0 to 5; got 6"):
        ChangedWeights(linear(), {"weight": torch.tensor([6])})
