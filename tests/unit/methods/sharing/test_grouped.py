from __future__ import annotations

import pytest
import torch
from sharing_models import SIZES, TASKS, LinearBackbone, rows

from graftwork.core.errors import ConfigError
from graftwork.methods.sharing.grouped import Grouped
from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk

GROUPS = [["first", "third"], ["second"]]


def build(groups: list[list[str]] = GROUPS) -> Grouped:
    torch.manual_seed(0)
    return Grouped(TASKS, LinearBackbone, inputs=SIZES, groups=groups)


def test_groups_share_a_trunk_and_nothing_else() -> None:
    model = build()
    assert len(model.backbones) == 2
    assert [id(p) for p in model.shared_parameters()] == [id(p) for p in model.backbones[0].parameters()]
    owned = {id(p) for p in model.task_parameters("second")}
    assert {id(p) for p in model.backbones[1].parameters()} < owned
    loss = model(rows(4), ("third",))["third"].square().sum()
    gradients = torch.autograd.grad(loss, list(model.backbones[1].parameters()), allow_unused=True)
    assert gradients == (None, None)


def test_a_trunk_runs_once_for_its_group_and_not_at_all_if_nobody_asks() -> None:
    model = build()
    assert list(model(rows(2), ("third", "first"))) == ["third", "first"]
    assert [backbone.calls for backbone in model.backbones] == [1, 0]
    model(rows(2))
    assert [backbone.calls for backbone in model.backbones] == [2, 1]


def test_groups_are_parts_that_are_clipped_apart() -> None:
    model = build()
    first, second = ({id(p) for p in part} for part in model.separate_parts())
    assert first == {id(p) for part in (model.backbones[0], model.heads[0], model.heads[2]) for p in part.parameters()}
    assert second == {id(p) for part in (model.backbones[1], model.heads[1]) for p in part.parameters()}
    (whole,) = SharedTrunk(TASKS, LinearBackbone, inputs=SIZES).separate_parts()
    assert len(whole) == len(list(build([["first", "second", "third"]]).parameters()))
    apart = Separate(TASKS, LinearBackbone, inputs=SIZES)
    assert [len(part) for part in apart.separate_parts()] == [len(list(apart.task_parameters(name))) for name in apart.task_names]


def test_heads_on_a_frozen_trunk_are_parts_of_their_own() -> None:
    model = SharedTrunk(TASKS, LinearBackbone, inputs=SIZES)
    model.backbone.requires_grad_(False)
    assert len(model.separate_parts()) == len(TASKS)


@pytest.mark.parametrize("groups", [[["first", "second", "third"]], [["first"], ["second"], ["third"]]])
def test_the_extremes_are_the_shared_trunk_and_separate_models(groups: list[list[str]]) -> None:
    model = build(groups)
    other = (SharedTrunk if len(groups) == 1 else Separate)(TASKS, LinearBackbone, inputs=SIZES)
    state = {
        name.replace("backbones.0", "backbone") if len(groups) == 1 else name: value for name, value in model.state_dict().items()
    }
    other.load_state_dict(state)
    for name, output in other(rows(3)).items():
        assert torch.equal(output, model(rows(3))[name])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("auto", "a grouping is measured by `graftwork compare`"),
        ([["first", "second"]], "task 'third' is in 0 groups"),
        ([["first", "second", "third"], ["first"]], "task 'first' is in 2 groups"),
        ([["first", "second", "third", "fourth"]], "unknown task 'fourth'"),
        ([["first", "second", "third"], []], "a group is empty"),
    ],
)
def test_groups_must_be_a_partition(groups: list[list[str]] | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Grouped(TASKS, LinearBackbone, inputs=SIZES, groups=groups)
