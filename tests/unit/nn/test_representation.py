from __future__ import annotations

import torch
from bindings import TASKS, example_batch
from torch import nn

from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.representation import representation_of


def test_a_look_changes_nothing_and_draws_nothing() -> None:
    model = SharedTrunk(TASKS, lambda: TableBackbone(4, width=8, num_blocks=1, dropout=0.5), inputs={})
    model.add_module("norm", nn.BatchNorm1d(8).eval())
    model.train()
    model.norm.eval()
    before = torch.get_rng_state()
    first, second = (representation_of(model, example_batch()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first.shape == (8, 8)
    assert torch.equal(first, second), "no dropout"
    assert not first.requires_grad
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert not model.norm.training


def test_models_that_share_nothing_have_none() -> None:
    model = Separate(TASKS, lambda: TableBackbone(4, width=8, num_blocks=1), inputs={})
    assert representation_of(model, example_batch()) is None
