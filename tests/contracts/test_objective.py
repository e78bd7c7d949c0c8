"""What every objective must do: the Objective seam. Objectives are found through plans and cards, with the sharing operator of a
plan that names them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bindings import TASKS, binding, example_batch
from discovery import found, named, plan_of, wrong_settings
from torch import Tensor

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.core.records import Component, Modality, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.tasks.losses import task_loss
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.trainer import TrainConfig, Trainer

OBJECTIVES, OPERATORS = found(Objective), found(SharedModel)
REFUSED = [(name, wrong) for name, component in OBJECTIVES.items() for wrong in wrong_settings(component)]
INPUTS = {"table": table_input(4), "image": image_input(16)}
ROWS = 40


CHAIN = (TaskSpec(name="click", kind="binary", size=1), TaskSpec(name="purchase", kind="binary", size=1))
"""For objectives of event chains: the second event needs the first, and is not known without it."""
LIVES = (TaskSpec(name="stay", kind="survival", size=3, details={"edges": [1.0, 2.0, 4.0]}),)
"""For objectives of times until an event."""


def suite_of(modality: Modality, tasks: Sequence[TaskSpec]) -> Suite:
    """Labelled rows of one domain, unlabelled rows of another; a few labels are missing."""
    batch = example_batch(ROWS)
    names = ("image",) if modality == "image" else ("numeric", "categorical")
    targets = {name: target.numpy() for name, target in batch.targets.items()}
    targets["sign"][3] = -1
    targets |= {"click": targets["sign"], "purchase": np.where(targets["sign"] == 1, targets["level"] % 2, -1)}
    stay = np.stack([np.arange(ROWS) % 5 + 0.5, np.arange(ROWS) % 2], axis=1).astype(np.float32)
    targets["stay"] = np.where((targets["sign"] >= 0)[:, None], stay, np.nan)
    return Suite(
        name="contract",
        input_specs=INPUTS[modality],
        tasks=tuple(tasks),
        inputs={name: batch.inputs[name].numpy() for name in names},
        targets={task.name: targets[task.name] for task in tasks},
        splits={"train": np.arange(ROWS)},
        domain=batch.domain.numpy(),
        domains=("day", "night"),
    )


def with_answers(component: Component, cache: Path) -> Component:
    """Return an objective that reads what teachers said with answers of one for these rows; all others as they are."""
    if "answers" not in inspect.signature(named(component.path)).parameters:
        return component
    random = np.random.default_rng(0)
    arrays = {f"outputs/{task.name}": random.standard_normal((ROWS, task.num_outputs)) for task in (*TASKS, *CHAIN, *LIVES)}
    arrays |= {"features": random.standard_normal((ROWS, 5)), "classes": random.dirichlet(np.ones(4), ROWS)}
    entry = store_answers(cache, "contract", "teacher", ROWS, lambda rows: {name: array[rows] for name, array in arrays.items()})
    return Component(component.path, {**component.settings, "answers": [str(entry)]})


class Case:
    """An objective, the model that it is made for, and steps with or without unlabelled rows, as a plan that names it asks."""

    def __init__(self, name: str, cache: Path) -> None:
        self.component = with_answers(OBJECTIVES[name], cache)
        plan = plan_of(self.component.path)
        self.modality: Modality = plan.modalities[0] if plan is not None and plan.modalities != ("any",) else "table"
        sharing = plan.train.sharing if plan is not None else Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")
        asks = plan is not None and any(quota.get("role") == "unlabelled" for quota in plan.train.training.get("quotas", ()))
        self.quotas: list[Mapping[str, Any]] = [{"rows": 6}, {"rows": 6, "role": "unlabelled"}] if asks else []
        # As its card builds the operator for tests, or as its plan does for a chain of events or for times; the objective says
        # which ones it cannot work with.
        known = OPERATORS[sharing.path.rpartition(":")[2]]
        for self.sharing, self.tasks in ((known, TASKS), (sharing, CHAIN), (known, LIVES)):
            self.suite = suite_of(self.modality, self.tasks)
            with contextlib.suppress(ConfigError):
                model = self.model()
                self.bound(model, self.objective()).loss(self.inputs(model))
                return
        pytest.fail(f"{name} works with none of {[[task.name for task in tasks] for tasks in (TASKS, CHAIN, LIVES)]}")

    def model(self) -> SharedModel:
        torch.manual_seed(0)
        built = self.sharing.build(self.tasks, lambda: scratch_backbone(INPUTS[self.modality]), inputs=INPUTS[self.modality])
        assert isinstance(built, SharedModel)
        return built

    def objective(self) -> Objective:
        built = self.component.build()
        assert isinstance(built, Objective)
        return built

    def trainer(self, seed: int = 0) -> Trainer:
        config = TrainConfig(max_steps=12, batch_size=8, quotas=self.quotas, learning_rate=1e-2)
        stream = BatchStream(self.suite, self.suite.splits["train"], 8, seed, quotas=self.quotas)
        return Trainer(
            self.model(),
            self.tasks,
            stream,
            balancer=EqualWeights(),
            objectives=[self.objective()],
            config=config,
            seeds=Seeds(seed),
        )

    def inputs(self, model: SharedModel, step: int = 0) -> ObjectiveInputs:
        batch = BatchStream(self.suite, self.suite.splits["train"], 8, 0, quotas=self.quotas).batch(step)
        representation = model.encode_batch(batch)
        outputs = model.decode(representation)
        losses = torch.stack([task_loss(task, outputs[task.name], batch.targets[task.name]) for task in self.tasks])
        return ObjectiveInputs(
            batch, model, outputs, losses, representation if isinstance(representation, Tensor) else None, step
        )

    def bound(self, model: SharedModel, objective: Objective) -> Objective:
        batch = self.inputs(model).batch
        known = binding(5, model=model, tasks=self.tasks)
        objective.bind(type(known)(model, self.tasks, known.facts, batch, known.device, known.seed))
        return objective


@pytest.fixture(params=sorted(OBJECTIVES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.getbasetemp() / "teachers")


def everything(trainer: Trainer) -> list[Tensor]:
    (objective,) = trainer.objectives
    own = [] if objective.module is None else list(objective.module.state_dict().values())
    return [tensor.detach().clone() for tensor in [*trainer.model.state_dict().values(), *own, *objective.parameters()]]


def tensors_of(batch: Batch) -> list[Tensor]:
    return [
        *batch.inputs.values(),
        *batch.targets.values(),
        *batch.mask.values(),
        batch.rows,
        batch.domain,
        batch.role,
        batch.task_ids,
    ]


def test_the_known_objectives_are_found() -> None:
    assert {"RepMTL", "ConfigurationTraining"} <= set(OBJECTIVES)


def test_the_term_is_a_finite_scalar_whose_gradient_is_finite(case: Case) -> None:
    model = case.model()
    objective = case.bound(model, case.objective())
    for step in range(3):
        term = objective.loss(case.inputs(model, step))
        assert term.shape == ()
        assert bool(term.isfinite())
        model.zero_grad(set_to_none=True)
        if term.requires_grad:
            term.backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_something_learns_from_it(case: Case) -> None:
    """A plan with the objective ends with other weights than the same plan without."""
    with_it, model = case.trainer(), case.model()
    bare = Trainer(model, case.tasks, with_it.stream, balancer=EqualWeights(), config=with_it.config, seeds=Seeds(0))
    with_it.train(3)
    bare.train(3)
    assert any(not torch.equal(one, two) for one, two in zip(with_it.model.parameters(), model.parameters(), strict=True))


def test_neither_batch_nor_outputs_nor_weights_change(case: Case) -> None:
    model = case.model()
    objective = case.bound(model, case.objective())
    inputs = case.inputs(model)
    watched = [*tensors_of(inputs.batch), *inputs.outputs.values(), inputs.losses, *model.state_dict().values()]
    before = [tensor.detach().clone() for tensor in watched]
    objective.loss(inputs)
    for tensor, old in zip(watched, before, strict=True):
        torch.testing.assert_close(tensor.detach(), old, rtol=0, atol=0, equal_nan=True)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_equal_seeds_give_equal_bits(case: Case) -> None:
    first, second = case.trainer(), case.trainer()
    first.train(6)
    torch.manual_seed(123)
    second.train(6)
    assert all(torch.equal(one, two) for one, two in zip(everything(first), everything(second), strict=True))


def test_a_run_resumes_from_a_file_with_the_same_bits(case: Case, tmp_path: Path) -> None:
    whole, first, second = case.trainer(), case.trainer(), case.trainer()
    whole.train(9)
    first.train(4)
    save_checkpoint(tmp_path, first.state_dict())
    second.load_state_dict(load_checkpoint(tmp_path))
    second.train(9)
    assert all(torch.equal(one, two) for one, two in zip(everything(whole), everything(second), strict=True))


def test_what_it_learns_itself_is_optimised_and_is_no_part_of_the_model(case: Case) -> None:
    trainer = case.trainer()
    (objective,) = trainer.objectives
    own = [*objective.parameters(), *([] if objective.module is None else objective.module.parameters())]
    wanted = {id(parameter) for parameter in own if parameter.requires_grad}
    learned = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert wanted <= learned
    assert not wanted & {id(parameter) for parameter in trainer.model.parameters()}
    before = [parameter.detach().clone() for parameter in own]
    trainer.train(3)
    after = [*objective.parameters(), *([] if objective.module is None else objective.module.parameters())]
    assert [id(parameter) for parameter in own] == [id(parameter) for parameter in after], (
        "made before the first step, never later"
    )
    assert not own or any(not torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_nothing_is_left_on_another_device(case: Case) -> None:
    """On the meta device every tensor that is made on the CPU beside the batch is an error; what must look at values cannot run
    there."""
    model = case.model()
    objective = case.bound(model, case.objective())
    inputs = case.inputs(model)
    model.to("meta")
    if objective.module is not None:
        objective.module.to("meta")
    batch = inputs.batch.to("meta")
    try:
        representation = model.encode_batch(batch)
        outputs = model.decode(representation)
        losses = torch.stack([(output.square().mean(dim=0)).sum() for output in outputs.values()])
        shared = representation if isinstance(representation, Tensor) else None
        term = objective.loss(ObjectiveInputs(batch, model, outputs, losses, shared, 0))
    except (NotImplementedError, RuntimeError) as error:
        if ("meta tensor" in str(error) and "data" in str(error)) or "item()" in str(error):
            pytest.skip(f"looks at values: {str(error)[:80]}")
        raise
    assert term.device.type == "meta"


@pytest.mark.parametrize(("name", "wrong"), REFUSED, ids=lambda value: str(value))
def test_wrong_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=f"{next(iter(wrong))}|takes no arguments"):
        Component(OBJECTIVES[name].path, {**OBJECTIVES[name].settings, **wrong}).build()
