from __future__ import annotations

import torch
from torch import nn

from graftwork.evaluation.held_by_modules import held_by_modules


def test_modules_hold_what_they_add_to_the_step_and_the_model_stays() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.GELU())
    model = nn.Sequential(nn.Linear(4, 8), inner, nn.Linear(8, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = held_by_modules(model.eval(), ["1.0", "1.2", "2"], torch.randn(5, 4))
    rows = 5 * 8 * 4
    # Each holds its input; that of the last layer is the output of the activation.
    assert found == {"1.0": rows, "1.2": rows, "2": rows}
    assert held_by_modules(model, ["1"], torch.randn(5, 4))["1"] == 3 * rows + 2 * 8 * 4  # and the norm mean and deviation
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
