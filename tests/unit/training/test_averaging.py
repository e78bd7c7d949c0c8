from __future__ import annotations

import torch
from torch import nn

from graftwork.training.averaging import WeightAverage, copy_sharing


def test_the_average_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = WeightAverage(model, 0.5)
    for step, value in enumerate([3.0, 5.0], start=1):
        model.weight.data.fill_(value)
        average.update(step)
    first = 1.0 + (3.0 - 1.0) * (1 - 2 / 11)  # early decay (1 + t) / (10 + t)
    second = first + (5.0 - first) * (1 - 3 / 12)
    torch.testing.assert_close(average.state_dict()["weight"], torch.tensor([[second]]))


def test_a_view_shares_what_does_not_learn_and_shows_the_average() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    average = WeightAverage(model, 0.9)
    view = average.view_of(model)
    assert view[0].weight.data_ptr() == model[0].weight.data_ptr()
    assert view[1].running_mean is model[1].running_mean
    assert view[2].weight.data_ptr() == average.state_dict()["2.weight"].data_ptr()
    assert set(average.state_dict()) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_a_state_goes_in_and_out() -> None:
    model = nn.Linear(2, 2)
    average, other = WeightAverage(model, 0.9), WeightAverage(nn.Linear(2, 2), 0.9)
    other.load_state_dict({name: tensor.clone() for name, tensor in average.state_dict().items()})
    assert torch.equal(other.state_dict()["weight"], average.state_dict()["weight"])


def test_tied_parameters_stay_tied_in_a_copy() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

    model = Tied()
    twin = copy_sharing(model, {id(model.first.weight): torch.zeros(3, 3)})
    assert twin.first.weight is twin.second.weight
    assert not twin.first.weight.any()
    assert bool(model.first.weight.any())
