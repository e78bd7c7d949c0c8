from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.recipes.optimization.grad_noise import ARMS, GRIDS, RECIPE, DeepReluNet, plain_digits


def test_grids_have_equal_sizes_and_every_arm_has_one() -> None:
    assert len({len(grid) for grid in GRIDS.values()}) == 1
    assert {arm.settings["noise"] for arm in ARMS} == set(GRIDS)
    assert {"trials", "tuning_runs"} <= set(RECIPE.equal_budget[0].counters)
    assert RECIPE.equal_budget[0].arms == ()


@pytest.mark.parametrize(("start", "deviation"), [("simple", 0.1), ("he", (2 / 50) ** 0.5), ("zero", 0.0)])
def test_weights_start_as_said(start: str, deviation: float) -> None:
    torch.manual_seed(0)
    model = DeepReluNet(64, 12, start)
    inner = torch.stack([layer.weight for layer in list(model.hidden)[1:] if isinstance(layer, nn.Linear)])
    assert inner.std().item() == pytest.approx(deviation, rel=0.02)
    assert len(model.hidden) == 12
    assert not any(bool(layer.bias.any()) for layer in model.hidden)


def test_zero_weights_have_no_gradient_below_the_output() -> None:
    model = DeepReluNet(64, 3, "zero")
    model({"numeric": torch.rand(5, 64)})["digit"].logsumexp(dim=1).sum().backward()
    assert all(not bool(parameter.grad.any()) for parameter in model.hidden.parameters() if parameter.grad is not None)
    assert model.output.bias.grad is not None
    assert bool(model.output.bias.grad.any())


def test_splits_are_disjoint_and_as_large_as_said() -> None:
    suite = plain_digits(0, 957)
    assert {name: len(rows) for name, rows in suite.splits.items()} == {"test": 540, "val": 300, "train": 957}
    assert len({int(row) for rows in suite.splits.values() for row in rows}) == 1797
    assert suite.inputs["numeric"].min() == 0.0
    assert suite.inputs["numeric"].max() == 1.0
