"""What every sharing operator must do: the SharedModel seam. Operators are found through the plans and cards, never listed
here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
import torch
from discovery import found, plans
from torch import Tensor

from graftwork.core.input_spec import InputSpec, image_input, table_input
from graftwork.core.records import Modality, TaskSpec
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.tasks.losses import task_loss

TASKS = (
    TaskSpec(name="training", kind="binary", size=1),  # names that collide with attributes of modules must do no harm
    TaskSpec(name="price.net", kind="regression", size=2, center=(0.0, 1.0), scale=(1.0, 2.0)),
    TaskSpec(name="stars", kind="ordinal", size=4),
)
INPUTS = {
    "table": table_input(4, [3, 2]),
    "image": image_input(16),
    "series": {"series": InputSpec(kind="series", sizes={"length": 12, "channels": 2, "horizon": 1})},
}
ROWS = 6


def _modalities() -> dict[str, Modality]:
    """Return what each operator of a plan reads: tables if any of its plans does, else what the first one names."""
    known: dict[str, list[Modality]] = {}
    for plan in plans():
        known.setdefault(plan.train.sharing.path.rpartition(":")[2], []).extend(plan.modalities)
    return {name: "table" if {"any", "table"} & set(modalities) else modalities[0] for name, modalities in known.items()}


OPERATORS, MODALITIES = found(SharedModel), _modalities()


def build(name: str) -> SharedModel:
    torch.manual_seed(0)
    modality = MODALITIES.get(name, "table")
    return OPERATORS[name].build(TASKS, lambda: scratch_backbone(INPUTS[modality]), inputs=INPUTS[modality]).eval()


def inputs_of(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "numeric": torch.randn(rows, 4, generator=generator),
        "categorical": torch.randint(0, 2, (rows, 2), generator=generator),
        "image": torch.randint(0, 256, (rows, 16, 16, 3), generator=generator, dtype=torch.uint8),
        "series": torch.randn(rows, 12, 2, generator=generator),
        "series_mask": torch.ones(rows, 12, 2, dtype=torch.bool),
        "series_times": 3600.0 * torch.arange(12).expand(rows, -1),
    }


def targets_of(rows: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "training": torch.randint(0, 2, (rows,), generator=generator),
        "price.net": torch.randn(rows, 2, generator=generator),
        "stars": torch.randint(0, 4, (rows,), generator=generator),
    }


@pytest.fixture(params=sorted(OPERATORS))
def model(request: pytest.FixtureRequest) -> SharedModel:
    return build(request.param)


def losses_of(model: SharedModel, rows: int = ROWS, tasks: Sequence[str] | None = None) -> Mapping[str, Tensor]:
    outputs, targets = model(inputs_of(rows), tasks), targets_of(rows)
    return {task.name: task_loss(task, outputs[task.name], targets[task.name]) for task in TASKS if task.name in outputs}


def test_the_known_operators_are_found() -> None:
    assert {"SharedTrunk", "Separate", "MMoE", "PLE"} <= set(OPERATORS)


@pytest.mark.parametrize("rows", [1, ROWS])
def test_outputs_have_the_width_of_each_task(model: SharedModel, rows: int) -> None:
    outputs = model(inputs_of(rows))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        task.name: (rows, task.num_outputs) for task in TASKS
    }
    assert model.task_names == tuple(task.name for task in TASKS)


@pytest.mark.parametrize("asked", [subset for size in (1, 2) for subset in itertools.permutations([t.name for t in TASKS], size)])
def test_asking_for_some_tasks_gives_what_asking_for_all_gives(model: SharedModel, asked: tuple[str, ...]) -> None:
    full, some = model(inputs_of(ROWS)), model(inputs_of(ROWS), asked)
    assert list(some) == list(asked)
    for name in asked:
        torch.testing.assert_close(some[name], full[name], rtol=1e-5, atol=1e-6)


def test_forward_is_decode_of_encode(model: SharedModel) -> None:
    representation = model.encode(inputs_of(ROWS))
    assert isinstance(representation, Tensor) == model.has_shared_representation
    for name, output in model.decode(representation).items():
        torch.testing.assert_close(output, model(inputs_of(ROWS))[name])


def test_shared_and_task_parameters_are_a_partition(model: SharedModel) -> None:
    parts = [[id(parameter) for parameter in model.task_parameters(task.name)] for task in TASKS]
    parts.append([id(parameter) for parameter in model.shared_parameters()])
    together = [number for part in parts for number in part]
    assert len(together) == len(set(together))
    assert set(together) == {id(parameter) for parameter in model.parameters()}
    assert all(parts[:-1])


def test_a_loss_reaches_only_shared_parameters_and_its_own(model: SharedModel) -> None:
    for task in TASKS:
        model.zero_grad(set_to_none=True)
        losses_of(model)[task.name].backward()
        for other in TASKS:
            reached = [p.grad is not None and bool(p.grad.any()) for p in model.task_parameters(other.name)]
            assert any(reached) == (other.name == task.name)


def test_every_shared_parameter_serves_several_tasks(model: SharedModel) -> None:
    shared = [parameter for parameter in model.shared_parameters() if parameter.requires_grad]  # a frozen base serves all
    served = [0] * len(shared)
    for loss in losses_of(model).values() if shared else ():
        for index, gradient in enumerate(torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)):
            served[index] += gradient is not None
    assert all(count >= 2 for count in served)


def test_what_tasks_own_lies_behind_the_representation(model: SharedModel) -> None:
    if not model.has_shared_representation:
        pytest.skip("nothing is shared")
    representation = model.encode(inputs_of(ROWS))
    assert isinstance(representation, Tensor)
    for task in TASKS:
        own = [parameter for parameter in model.task_parameters(task.name) if parameter.requires_grad]
        assert all(g is None for g in torch.autograd.grad(representation.sum(), own, retain_graph=True, allow_unused=True))


def test_all_parameters_learn(model: SharedModel) -> None:
    model.train()
    for parameter in model.parameters():  # layers that start at zero would hide those before them
        torch.nn.init.normal_(parameter, std=0.2)
    torch.stack(list(losses_of(model).values())).sum().backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None and parameter.requires_grad]
    assert not idle


def test_the_state_goes_through_a_file_of_tensors(model: SharedModel, request: pytest.FixtureRequest) -> None:
    other = build(request.node.callspec.params["model"])
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
    for name, output in other(inputs_of(ROWS)).items():
        assert torch.equal(output, model(inputs_of(ROWS))[name])


def test_an_auxiliary_loss_is_given_once(model: SharedModel) -> None:
    model(inputs_of(ROWS))
    model.pop_auxiliary_loss()
    assert model.pop_auxiliary_loss() is None
