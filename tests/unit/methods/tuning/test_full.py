"""Full tuning: everything learns, BatchNorm statistics only if they may."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.math.fingerprint import state_fingerprint
from graftwork.methods.tuning.full import FullTuning


@pytest.mark.parametrize("freeze", [False, True])
def test_batch_norm_statistics_move_unless_frozen(freeze: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model.requires_grad_(False)
    tuner = FullTuning(freeze_batch_norm=freeze)
    tuner.attach(model)
    model.train()
    model(torch.randn(8, 3, 6, 6) + 3).sum().backward()
    assert torch.equal(model[1].running_mean, torch.zeros(4)) is freeze
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())
    assert model[2].training
    assert {id(parameter) for parameter in tuner.trainable()} == {id(parameter) for parameter in model.parameters()}
    assert not tuner.keeps_features_fixed()
    tuner.fold()
    assert type(model[1]) is nn.BatchNorm2d
    assert model.train()[1].training


def test_the_delta_of_tied_weights_belongs_to_the_base() -> None:
    def tied() -> nn.Module:
        torch.manual_seed(0)
        model = nn.ModuleDict({"first": nn.Linear(3, 3), "second": nn.Linear(3, 3)})
        model["second"].weight = model["first"].weight
        return model

    model, base = tied(), tied()
    tuner = FullTuning()
    tuner.attach(model)
    with torch.no_grad():
        for parameter in tuner.trainable():
            parameter += 1.0
    delta = tuner.delta()
    assert delta.base_fingerprint == state_fingerprint(base.state_dict())
    delta.attach(base)
    assert all(torch.equal(base.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
