"""Objectives with modules of their own, unlabelled rows of another domain, and what parts of a plan are bound to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import assert_equal_weights, small_learner, small_model, small_plan, small_suite, weights_of
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.batch import UNLABELLED
from graftwork.core.components import components_allowed
from graftwork.core.errors import CheckpointError, ConfigError
from graftwork.core.records import Component
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.balancer import WeightBalancer
from graftwork.interfaces.binding import Binding
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.sam import SAM
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.nn.representation import representation_of
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.multitask import suite_facts
from graftwork.training.trainer import TrainConfig, Trainer

QUOTAS = ({"role": "labelled", "rows": 12}, {"role": "unlabelled", "rows": 12, "domain": "night"})


def two_domains() -> Suite:
    """The small suite; of the second domain no row has a label, and its inputs are moved."""
    suite = small_suite()
    night = np.arange(len(suite)) % 2 == 1
    targets = {name: target.copy() for name, target in suite.targets.items()}
    for target in targets.values():
        target[night] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
    numeric = suite.inputs["numeric"] + 1.5 * night[:, None].astype(np.float32)
    moved = suite.with_inputs({**suite.inputs, "numeric": numeric}).with_targets(targets)
    return Suite(
        **{
            **{name: getattr(moved, name) for name in moved.__dataclass_fields__},
            "domain": night.astype(np.int64),
            "domains": ("day", "night"),
        }
    )


SUITE = two_domains()


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class DomainLoss(Objective):
    """A discriminator tells domains apart, the trunk is moved against it; its strength grows over the horizon."""

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.bound: list[Binding] = []
        self.met: list[tuple[int, int]] = []

    def bind(self, binding: Binding) -> None:
        if not sum(binding.facts.unlabelled):
            raise ConfigError("DomainLoss needs unlabelled rows; ask for them with `quotas`.")
        self.bound.append(binding)
        features = representation_of(binding.model, binding.example)
        assert features is not None
        self.module = nn.Sequential(
            nn.Linear(features.shape[1], self.width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(self.width, len(binding.facts.domains)),
        )

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        assert self.module is not None
        assert self.module.training
        assert inputs.representation is not None
        role = inputs.batch.role
        self.met.append((int((role != UNLABELLED).sum()), int((role == UNLABELLED).sum())))
        strength = inputs.step / self.bound[0].facts.horizon
        return strength * F.cross_entropy(self.module(Reversed.apply(inputs.representation)), inputs.batch.domain)


def trainer_of(objective: Objective, balancer: Any = None, quotas: Any = QUOTAS, **options: Any) -> Trainer:
    config = TrainConfig(**{"max_steps": 40, "quotas": quotas, "learning_rate": 1e-2, "ema_decay": 0.9, **options})
    stream = BatchStream(SUITE, SUITE.splits["train"], config.batch_size, 0, quotas=config.quotas)
    return Trainer(
        small_model(SUITE),
        SUITE.tasks,
        stream,
        balancer=balancer or EqualWeights(),
        objectives=[objective],
        config=config,
        seeds=Seeds(0),
    )


def test_unlabelled_rows_reach_the_objective_and_no_task() -> None:
    objective = DomainLoss()
    trainer = trainer_of(objective)
    trainer.train(5)
    assert objective.met == [(12, 12)] * 5
    batch = trainer.stream.batch(0)
    outputs = trainer.model(batch.inputs)
    labelled = batch.take(slice(0, 12))
    alone = trainer.losses({name: output[:12] for name, output in outputs.items()}, labelled)
    torch.testing.assert_close(trainer.losses(outputs, batch), alone)


def test_the_objective_is_bound_once_and_its_module_learns_from_the_first_step() -> None:
    objective = DomainLoss()
    trainer = trainer_of(objective)
    (bound,) = objective.bound
    assert bound.model is trainer.model
    assert bound.tasks == SUITE.tasks
    assert bound.device == torch.device("cpu")
    assert bound.seed == Seeds(0).integer("objective/0")
    train = SUITE.splits["train"]
    night = np.asarray(SUITE.domain)[train]
    assert bound.facts.domains == ("day", "night")
    assert bound.facts.unlabelled == (0, int(night.sum()))
    assert bound.facts.labelled[1] == 0
    assert (bound.facts.batch_size, bound.facts.horizon) == (24, 40)
    assert bound.facts == suite_facts(trainer.stream, 40)
    learned = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
    assert objective.module is not None
    assert {id(parameter) for parameter in objective.module.parameters()} <= learned
    before = weights_of(objective.module)
    trainer.train(3)
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(objective.module).items())


def test_modules_made_in_bind_start_alike_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    first = trainer_of(DomainLoss())
    torch.manual_seed(4)
    small_model(SUITE)  # what the builder draws for the model itself
    expected = torch.get_rng_state()
    torch.manual_seed(4)
    second = trainer_of(DomainLoss())
    assert torch.equal(expected, torch.get_rng_state())
    mine, theirs = first.objectives[0].module, second.objectives[0].module
    assert mine is not None
    assert theirs is not None
    assert_equal_weights(weights_of(mine), weights_of(theirs))


@pytest.mark.parametrize("balancer", [None, SAM, lambda: jacobian_balancer("UPGrad")])
def test_a_run_with_a_discriminator_resumes_bit_for_bit(tmp_path: Path, balancer: Any) -> None:
    def build() -> Trainer:
        return trainer_of(DomainLoss(), None if balancer is None else balancer())

    whole = build()
    whole.train(20)
    first = build()
    first.train(9)
    save_checkpoint(tmp_path, first.state_dict())
    torch.manual_seed(99)
    second = build()
    second.load_state_dict(load_checkpoint(tmp_path))
    second.train(20)
    assert_equal_weights(weights_of(whole.model), weights_of(second.model))
    mine, theirs = whole.objectives[0].module, second.objectives[0].module
    assert mine is not None
    assert theirs is not None
    assert_equal_weights(weights_of(mine), weights_of(theirs))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        trainer_of(Strength()).load_state_dict(load_checkpoint(tmp_path))


class Strength(Objective):
    """Learns one number outside of modules."""

    def bind(self, binding: Binding) -> None:
        self.factor = nn.Parameter(torch.ones((), device=binding.device))

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        return self.factor.square()

    def parameters(self) -> list[nn.Parameter]:
        return [self.factor]


def test_parameters_made_in_bind_are_in_the_optimiser() -> None:
    objective = Strength()
    trainer = trainer_of(objective)
    trainer.train(3)
    assert objective.factor.item() < 1.0


class MeanGap(Objective):
    """Moves the mean features of labelled and unlabelled rows together."""

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        assert inputs.representation is not None
        unlabelled = inputs.batch.role == UNLABELLED
        gap = inputs.representation[unlabelled].mean(dim=0) - inputs.representation[~unlabelled].mean(dim=0)
        return gap.square().sum()


def test_unlabelled_rows_move_the_trunk() -> None:
    def distance(trainer: Trainer) -> float:
        batch = trainer.stream.source.batch(SUITE.splits["train"])
        with torch.no_grad():
            features = trainer.eval_model().encode(batch.inputs)
        assert isinstance(features, Tensor)
        day, night = features[batch.domain == 0], features[batch.domain == 1]
        return float((day.mean(dim=0) - night.mean(dim=0)).norm() / features.std(dim=0).norm())

    together, plain = trainer_of(MeanGap(), max_steps=80), trainer_of(Strength(), max_steps=80)
    together.train(80)
    plain.train(80)
    assert distance(together) < 0.5 * distance(plain)


def test_parts_of_a_batch_hold_their_share_of_every_quota() -> None:
    objective = DomainLoss()
    whole, parts = trainer_of(DomainLoss()), trainer_of(objective, accumulate=3)
    for trainer in (whole, parts):
        for module in [*trainer.model.modules(), *trainer.objectives[0].module.modules()]:
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        trainer.train(2)
    assert objective.met == [(4, 4)] * 6
    for name, tensor in weights_of(whole.model).items():
        torch.testing.assert_close(parts.model.state_dict()[name], tensor, rtol=1e-3, atol=2e-5)


def test_an_objective_refuses_data_before_the_first_step() -> None:
    with pytest.raises(ConfigError, match="DomainLoss needs unlabelled rows; ask for them with `quotas`"):
        trainer_of(DomainLoss(), quotas=())


def test_balancers_transforms_and_inner_balancers_are_bound() -> None:
    class Watching(WeightBalancer):
        seeds: list[int]

        def bind(self, binding: Binding) -> None:
            self.seeds = [binding.seed]

        def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
            return losses.sum(), torch.ones_like(losses)

    class Doubling(GradientTransform):
        seed = -1

        def bind(self, binding: Binding) -> None:
            self.seed = binding.seed

        def apply(self, context: GradientContext) -> None:
            pass

    inner, transform = Watching(), Doubling()
    stream = BatchStream(SUITE, SUITE.splits["train"], 8, 0)
    Trainer(
        small_model(SUITE),
        SUITE.tasks,
        stream,
        balancer=SAM(balancer=inner),
        transforms=[Doubling(), transform],
        config=TrainConfig(),
        seeds=Seeds(5),
    )
    assert inner.seeds == [Seeds(5).integer("balancer")]
    assert transform.seed == Seeds(5).integer("transform/1")


def test_wrong_weights_are_an_error_before_the_first_step() -> None:
    with pytest.raises(
        ConfigError, match=r"`weights` has 2 entries for 3 tasks \(sign, level, amount\); give one weight per task"
    ):
        trainer_of(Strength(), EqualWeights([1.0, 2.0]))


def test_a_plan_asks_for_unlabelled_rows(tmp_path: Path) -> None:
    """Rows without labels are in the training split, and a plan's training settings bring them into every step."""
    plan = small_plan(training={"quotas": list(QUOTAS)}, objectives=(Component("test_binding:DomainLoss"),))
    with components_allowed("test_binding"):
        learner = small_learner(SUITE, tmp_path, plan)
    learner.train(4)
    objective = learner.trainer.objectives[0]
    assert objective.met == [(12, 12)] * 4  # type: ignore[attr-defined]
    assert learner.ledger().samples == 4 * 24


def test_wrong_quotas_of_a_plan_are_named_with_the_other_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(batch_size=0, quotas=[{"rows": 4, "role": "unlabeled"}])
    assert any("batch_size" in problem for problem in caught.value.problems)
    assert any("quotas[0]: role must be one of labelled, unlabelled" in problem for problem in caught.value.problems)
