"""Statistics that are measured anew leave the network as it was."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from graftwork.methods.merging.batch_norm import estimate_statistics
from graftwork.nn.freeze import fix_mode


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4)))


def test_each_module_keeps_its_own_mode() -> None:
    learning = network().train()
    learning[2].eval()
    before = [part.training for part in learning.modules()]
    assert True in before
    assert False in before
    found = estimate_statistics(learning, list(torch.randn(3, 8, 3)), learning)
    assert [part.training for part in learning.modules()] == before
    assert len(found) == 4


def test_a_norm_whose_mode_is_fixed_is_measured_too() -> None:
    plain, frozen = network(), network()
    fix_mode(frozen[1])
    batches = list(5 + torch.randn(3, 8, 3))
    wanted, found = (estimate_statistics(one, batches, one) for one in (plain, frozen))
    assert abs(wanted["1.running_mean"]).max() > 0.5
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    assert not frozen[1].training
