from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.chosen_weights import ChosenWeights, draw_places
from graftwork.nn.foldable import fold_layers


@given(filters=st.integers(1, 6), channels=st.integers(1, 4), count=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_places_differ_inside_each_filter(filters: int, channels: int, count: int, seed: int) -> None:
    layer = nn.Conv2d(channels, filters, 1)
    places = draw_places(layer, count, torch.Generator().manual_seed(seed))
    assert places.shape == (filters, min(count, channels))
    assert all(len(set(row.tolist())) == len(row) for row in places)
    assert int(places.max()) < channels


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_only_chosen_weights_move_whatever_the_optimiser_does(optimiser: str) -> None:
    torch.manual_seed(0)
    base = nn.Conv2d(3, 4, 3)
    before = base.weight.detach().clone()
    layer = ChosenWeights(base, draw_places(base, 2))
    options = {"lr": 0.1, "weight_decay": 0.3}
    steps = (
        torch.optim.SGD(layer.parameters(), momentum=0.9, **options)
        if optimiser == "sgd"
        else torch.optim.AdamW(layer.parameters(), **options)
    )
    for _ in range(5):
        steps.zero_grad()
        layer(torch.randn(2, 3, 5, 5)).square().sum().backward()
        steps.step()
    moved = (layer.weight != before).flatten(1)
    assert moved.sum(dim=1).tolist() == [2, 2, 2, 2]
    assert bool(moved.gather(1, layer.places).all())
    assert torch.equal(base.weight, before)


def test_a_new_layer_computes_what_its_base_does_and_folds_into_it() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    inputs = torch.randn(5, 4)
    before = model(inputs)
    model[0] = ChosenWeights(model[0], torch.tensor([[0, 2], [1, 3], [0, 1]]))  # type: ignore[arg-type]
    assert torch.equal(model(inputs), before)
    with torch.no_grad():
        model[0].values.add_(1.0)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(model[0].difference(), torch.ones(3, 2))  # type: ignore[operator, union-attr]
    after, folded = model(inputs), copy.deepcopy(model)
    assert fold_layers(folded) == 1
    assert type(folded[0]) is nn.Linear
    torch.testing.assert_close(folded(inputs), after)


@pytest.mark.parametrize("places", [torch.zeros(2, 1, dtype=torch.int64), torch.full((3, 1), 4), torch.full((3, 1), -1)])
def test_places_that_do_not_fit_are_refused(places: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"must be \[3, k\] with values from 0 to 3"):
        ChosenWeights(nn.Linear(4, 3), places)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (torch.zeros(2, 0, dtype=torch.int64), r"got shape \[2, 0\]\.$"),
        (torch.full((3, 1), 4), r"values from 0 to 3; got shape \[3, 1\], values from 4 to 4\.$"),
        (torch.full((3, 1), -1), r"values from -1 to -1\.$"),
    ],
)
def test_places_that_do_not_fit_are_named(places: torch.Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChosenWeights(nn.Linear(4, 3), places)
