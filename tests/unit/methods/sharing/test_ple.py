from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from sharing_models import SIZES, TASKS, LinearBackbone, MapBackbone, rows
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.methods.sharing.ple import PLE


def build(**settings: Any) -> PLE:
    torch.manual_seed(0)
    model = PLE(TASKS, LinearBackbone, inputs=SIZES, expert_width=5, dropout=0.0, **settings)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def slow_bank(bank: Any, features: Tensor) -> list[Tensor]:
    return [
        F.gelu(features @ bank.weight_in[i] + bank.bias_in[i]) @ bank.weight_out[i] + bank.bias_out[i]
        for i in range(bank.num_experts)
    ]


def slow_mix(gate: Any, state: Tensor, experts: Sequence[Tensor]) -> Tensor:
    weights = torch.softmax(gate.scores(state), dim=1)
    return sum((weights[:, i : i + 1] * expert for i, expert in enumerate(experts)), torch.zeros(()))


def slow_forward(model: PLE, features: Tensor, num_levels: int) -> dict[str, Tensor]:
    """The paper's recursion, expert by expert."""
    banks: Any = model.task_banks
    gates: Any = model.task_gates
    shared, states = features, [features] * len(TASKS)
    for level in range(num_levels):
        common = slow_bank(model.shared_banks[level], shared)
        own = [slow_bank(banks[level][task], states[task]) for task in range(len(TASKS))]
        mixed = [slow_mix(gates[level][task], states[task], [*own[task], *common]) for task in range(len(TASKS))]
        if level + 1 < num_levels:
            everyone = [expert for experts in own for expert in experts] + common
            shared = slow_mix(model.shared_gates[level], shared, everyone)
        states = mixed
    return {task.name: model.heads[index](states[index]) for index, task in enumerate(TASKS)}


@pytest.mark.parametrize("num_levels", [1, 2, 3, 4])
@pytest.mark.parametrize(("shared", "own"), [(1, 1), (2, 3)])
def test_outputs_equal_the_papers_recursion(num_levels: int, shared: int, own: int) -> None:
    model = build(num_levels=num_levels, shared_experts=shared, task_experts=own)
    reference = slow_forward(model, model.backbone(rows(4)), num_levels)
    for name, output in model(rows(4)).items():
        torch.testing.assert_close(output, reference[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_what_a_task_owns_serves_it_alone(num_levels: int) -> None:
    model = build(num_levels=num_levels, shared_experts=2, task_experts=2)
    outputs = model(rows(4))
    for task in TASKS:
        for other in TASKS:
            found = torch.autograd.grad(
                outputs[task.name].square().sum(), list(model.task_parameters(other.name)), retain_graph=True, allow_unused=True
            )
            reached = any(gradient is not None and bool(gradient.any()) for gradient in found)
            assert reached == (task.name == other.name)
    assert list(model.shared_parameters())


def test_maps_keep_their_extent() -> None:
    model = PLE(TASKS, MapBackbone, inputs=SIZES, expert_width=5)
    representation = model.encode(rows(2))
    assert representation.shape[2:] == (2, 3)
    assert model(rows(2))["second"].shape == (2, 2)


@pytest.mark.parametrize("setting", ["num_levels", "shared_experts", "task_experts"])
def test_numbers_below_one_are_refused(setting: str) -> None:
    with pytest.raises(ValueError, match=f"`{setting}` must be at least 1; got 0"):
        PLE(TASKS, LinearBackbone, inputs=SIZES, **{setting: 0})
