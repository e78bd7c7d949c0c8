from __future__ import annotations

import pytest
import torch
from small_runs import small_model, small_suite
from torch import nn

from graftwork.core.errors import CheckpointError
from graftwork.training.config import TrainConfig
from graftwork.training.optimizers import build_optimizer, load_optimizer_state, optimizer_state

SUITE = small_suite()


def test_every_parameter_is_in_one_group_with_the_right_decay_and_rate() -> None:
    model, extra = small_model(SUITE), nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer(model, [extra], TrainConfig(learning_rate=0.1, backbone_lr_scale=0.5, weight_decay=0.3))
    group_of = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    assert len(group_of) == sum(1 for _ in model.parameters()) + 1
    for name, parameter in model.named_parameters():
        group = group_of[id(parameter)]
        assert group["weight_decay"] == (0.3 if parameter.ndim > 1 else 0.0)
        assert group["base_lr"] == pytest.approx(0.05 if name.startswith("backbone") else 0.1)
    assert group_of[id(extra)]["weight_decay"] == 0.0


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_the_state_continues_where_it_was(name: str) -> None:
    def build() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        return layer, build_optimizer(layer, [], TrainConfig(optimizer=name))  # type: ignore[arg-type]

    def step(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        layer(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()

    first, second = build(), build()
    for _ in range(3):
        step(*first)
    second[0].load_state_dict({key: value.clone() for key, value in first[0].state_dict().items()})
    load_optimizer_state(second[1], optimizer_state(first[1]))
    step(*first)
    step(*second)
    assert torch.equal(first[0].weight, second[0].weight)


def test_a_state_of_other_parameters_is_refused() -> None:
    layer, other = nn.Linear(3, 2), nn.Linear(5, 2)
    optimizer, wrong = build_optimizer(layer, [], TrainConfig()), build_optimizer(other, [], TrainConfig())
    other(torch.ones(1, 5)).sum().backward()
    wrong.step()
    with pytest.raises(CheckpointError, match="belongs to another model"):
        load_optimizer_state(optimizer, optimizer_state(wrong))
