from __future__ import annotations

import pytest
import torch
from sharing_models import SIZES, TASKS, LinearBackbone, MapBackbone, rows
from torch import nn

from graftwork.methods.sharing.mmoe import MMoE


def test_outputs_equal_the_papers_equations() -> None:
    torch.manual_seed(0)
    model = MMoE(TASKS, LinearBackbone, inputs=SIZES, num_experts=3, expert_width=5, dropout=0.0)
    for gate in model.gates:
        nn.init.normal_(gate.scores.weight)
    features = model.backbone(rows(4))
    bank = model.experts
    experts = [
        nn.functional.gelu(features @ bank.weight_in[i] + bank.bias_in[i]) @ bank.weight_out[i] + bank.bias_out[i]
        for i in range(3)
    ]
    outputs = model(rows(4))
    for index, task in enumerate(TASKS):
        gate = torch.softmax(model.gates[index].scores(features), dim=1)
        mixed = sum(gate[:, i : i + 1] * experts[i] for i in range(3))
        torch.testing.assert_close(outputs[task.name], model.heads[index](mixed))


def test_the_representation_holds_features_and_experts() -> None:
    model = MMoE(TASKS, LinearBackbone, inputs=SIZES, num_experts=3, expert_width=5)
    assert model.encode(rows(2)).shape == (2, 4 + 3 * 5)
    maps = MMoE(TASKS, MapBackbone, inputs=SIZES, num_experts=3, expert_width=5)
    assert maps.encode(rows(2)).shape == (2, 4 + 3 * 5, 2, 3)
    assert maps(rows(2))["third"].shape == (2, 3)


def test_only_gates_and_heads_are_owned() -> None:
    model = MMoE(TASKS, LinearBackbone, inputs=SIZES)
    shared = {id(parameter) for parameter in model.shared_parameters()}
    assert shared == {id(parameter) for part in (model.backbone, model.experts) for parameter in part.parameters()}


def test_no_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="`num_experts` must be at least 1; got 0"):
        MMoE(TASKS, LinearBackbone, inputs=SIZES, num_experts=0)
