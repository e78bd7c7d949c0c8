"""A look at a model in evaluation mode leaves every part of it in the mode that it had."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.nn.freeze import fix_mode
from graftwork.nn.modes import evaluating


def mixed() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.BatchNorm1d(2))
    model.train()
    model[1].eval()
    fix_mode(model[2])
    return model


def test_each_part_gets_its_own_mode_back() -> None:
    model = mixed()
    before = [part.training for part in model.modules()]
    assert set(before) == {True, False}
    with evaluating(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == before
    with pytest.raises(ZeroDivisionError), evaluating(model):
        raise ZeroDivisionError
    assert [part.training for part in model.modules()] == before
    assert torch.is_grad_enabled()
