"""Frozen: no weight and no statistic moves."""

from __future__ import annotations

import copy

import torch
from torch import nn

from graftwork.methods.tuning.frozen import Frozen


def model_with_state() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_features_are_the_same_in_training_mode() -> None:
    model = model_with_state()
    Frozen().attach(model)
    outer = nn.Sequential(model, nn.Linear(2, 1))
    outer.train()
    inputs = torch.randn(16, 4)
    before = copy.deepcopy(model.state_dict())
    first = model(inputs)
    outer(inputs).sum().backward()
    assert torch.equal(model(inputs), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert outer.training
    assert outer[1].training


def test_nothing_learns_and_features_may_be_stored() -> None:
    model, tuner = model_with_state(), Frozen()
    tuner.attach(model)
    assert list(tuner.trainable()) == []
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert tuner.keeps_features_fixed()
    assert not model(torch.randn(2, 4)).requires_grad


def test_fold_gives_the_mode_back() -> None:
    model, tuner = model_with_state(), Frozen()
    tuner.attach(model)
    tuner.fold()
    assert type(model) is nn.Sequential
    assert model.train().training
    assert model[2].training


def test_copies_stay_frozen_on_their_own() -> None:
    model = model_with_state()
    Frozen().attach(model)
    average = copy.deepcopy(model).train()
    assert not average[1].training
    average[0].weight.data.zero_()
    assert model[0].weight.abs().sum() > 0
