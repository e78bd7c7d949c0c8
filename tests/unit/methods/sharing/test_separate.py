from __future__ import annotations

import torch
from sharing_models import SIZES, TASKS, LinearBackbone, rows

from graftwork.methods.sharing.separate import Separate


def build(made: list[LinearBackbone]) -> Separate:
    def make() -> LinearBackbone:
        made.append(LinearBackbone())
        return made[-1]

    return Separate(TASKS, make, inputs=SIZES)


def test_nothing_is_shared() -> None:
    made: list[LinearBackbone] = []
    model = build(made)
    assert len(made) == 3
    assert not model.has_shared_representation
    assert list(model.shared_parameters()) == []


def test_only_the_asked_backbones_run() -> None:
    made: list[LinearBackbone] = []
    model = build(made)
    outputs = model(rows(2), ("third",))
    assert list(outputs) == ["third"]
    assert [backbone.calls for backbone in made] == [0, 0, 1]


def test_a_task_learns_as_if_it_were_alone() -> None:
    torch.manual_seed(0)
    model = build([])
    alone = model(rows(4), ("second",))["second"].square().sum()
    alone_gradients = torch.autograd.grad(alone, list(model.task_parameters("second")))
    together = torch.stack([output.square().sum() for output in model(rows(4)).values()]).sum()
    for mine, theirs in zip(torch.autograd.grad(together, list(model.task_parameters("second"))), alone_gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
