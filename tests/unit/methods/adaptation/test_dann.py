from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from graftwork.claims.plan_arms import card_plan
from graftwork.core.batch import UNLABELLED
from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.domain_pairs import rotated_moons
from graftwork.interfaces.learner import LearnerContext
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.adaptation.dann import DomainAdversarial
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.discrepancy import mean_discrepancy
from graftwork.training.learner import NeuralLearner
from graftwork.training.trainer import TrainConfig, Trainer

QUOTAS = ({"role": "labelled", "rows": 8}, {"role": "unlabelled", "rows": 6})


def make_trainer(
    *objectives: DomainAdversarial, quotas: Any = QUOTAS, sharing: type = SharedTrunk, steps: int = 10, **settings: Any
) -> Trainer:
    suite = rotated_moons(num_source=40, num_target=40, num_test=8)
    labels = suite.targets["moon"].copy()
    labels[suite.splits["target"]] = -1
    suite = suite.with_targets({"moon": labels})
    rows = np.concatenate([suite.splits["train"], suite.splits["target"]])
    torch.manual_seed(0)
    model = sharing(
        suite.tasks, lambda: TableBackbone(2, width=8, num_blocks=1, dropout=0.0), inputs=suite.input_specs, head_hidden=0
    )
    return Trainer(
        model,
        suite.tasks,
        BatchStream(suite, rows, 8, 0, quotas=quotas),
        balancer=EqualWeights(),
        objectives=objectives,
        config=TrainConfig(max_steps=steps, quotas=quotas, **{"grad_clip": 0.0, **settings}),
        seeds=Seeds(0),
    )


def term(trainer: Trainer, step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the objective's term, the representation and the roles of the first batch."""
    batch = trainer.stream.batch(0)
    features = trainer.model.encode(batch.inputs)
    assert isinstance(features, torch.Tensor)
    features.retain_grad()
    outputs = trainer.model.decode(features)
    losses = trainer.losses(outputs, batch)
    found = trainer.objectives[0].loss(ObjectiveInputs(batch, trainer.model, outputs, losses, features, step))
    return found, features, batch.role


def test_the_term_is_the_mean_over_the_source_plus_the_mean_over_the_target() -> None:
    trainer = make_trainer(DomainAdversarial(hidden=()))
    found, features, role = term(trainer)
    module = trainer.objectives[0].module
    assert module is not None
    logits = module(features).squeeze(1)
    assert role.tolist() == [0] * 8 + [UNLABELLED] * 6
    by_hand = F.softplus(logits[:8]).mean() + F.softplus(-logits[8:]).mean()
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_scales_the_gradient_of_features_and_not_that_of_the_classifier(strength: float) -> None:
    trainer = make_trainer(DomainAdversarial(strength, schedule="constant"))
    module = trainer.objectives[0].module
    assert module is not None
    found, features, role = term(trainer)
    found.backward()
    assert features.grad is not None
    by_reversal = features.grad, [parameter.grad for parameter in module.parameters()]
    plain = features.detach().requires_grad_(True)
    losses = F.binary_cross_entropy_with_logits(module(plain).squeeze(1), role.float(), reduction="none")
    direct = losses[:8].mean() + losses[8:].mean()
    expected = torch.autograd.grad(direct, [plain, *module.parameters()])
    torch.testing.assert_close(by_reversal[0], -strength * expected[0])
    torch.testing.assert_close(by_reversal[1], list(expected[1:]))


def test_the_strength_grows_from_zero_with_the_progress_of_training() -> None:
    objective = DomainAdversarial(0.5)
    make_trainer(objective, steps=100)
    assert objective.strength(0) == 0.0
    assert objective.strength(10) == pytest.approx(0.5 * (2 / (1 + math.exp(-1.0)) - 1))
    assert objective.strength(100) == objective.strength(500) == pytest.approx(0.5, rel=1e-3)
    assert DomainAdversarial(0.5, schedule="constant").strength(0) == 0.5


def test_one_step_trains_classifier_and_features() -> None:
    trainer = make_trainer(DomainAdversarial(schedule="constant"))
    module = trainer.objectives[0].module
    assert module is not None
    before = [parameter.detach().clone() for parameter in module.parameters()]
    trainer.train(1)
    assert all(bool((old != new).any()) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("grad_clip", [0.0, 1e-3, 5.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_strength_zero_leaves_the_model_bit_for_bit_as_without_the_objective(grad_clip: float, optimizer: str) -> None:
    """Also where clipping shrinks every step: the classifier's gradients must not count in the norm of the model's."""
    settings: dict[str, Any] = {"grad_clip": grad_clip, "optimizer": optimizer}
    without, beside = make_trainer(**settings), make_trainer(DomainAdversarial(0.0), **settings)
    without.train(6)
    beside.train(6)
    for left, right in zip(without.model.parameters(), beside.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_both_domains_go_through_the_same_extractor_and_no_label_of_the_target_is_seen() -> None:
    trainer = make_trainer(DomainAdversarial())
    batch = trainer.stream.batch(0)
    assert batch.domain.tolist() == [0] * 8 + [1] * 6
    assert bool((batch.targets["moon"][8:] == -1).all())
    found, features, _ = term(trainer, step=5)
    assert len(features) == 14
    found.backward()
    assert features.grad is not None
    assert bool((features.grad.abs().sum(dim=1) > 0).all())


def test_a_missing_domain_counts_nothing() -> None:
    trainer = make_trainer(DomainAdversarial())
    whole = trainer.stream.batch(0)
    batch = whole.take(slice(0, 8))
    features = trainer.model.encode(batch.inputs)
    assert isinstance(features, torch.Tensor)
    module = trainer.objectives[0].module
    assert module is not None
    found = trainer.objectives[0].loss(ObjectiveInputs(batch, trainer.model, {}, torch.zeros(1), features, 0))
    torch.testing.assert_close(found, F.softplus(module(features)).mean())


def test_training_is_the_same_twice_and_after_a_checkpoint() -> None:
    whole, first, second = (make_trainer(DomainAdversarial()) for _ in range(3))
    whole.train(6)
    first.train(3)
    second.load_state_dict(first.state_dict())
    second.train(6)
    left, right = whole.objectives[0].module, second.objectives[0].module
    assert isinstance(left, nn.Module)
    assert isinstance(right, nn.Module)
    for one, other in zip(
        [*whole.model.parameters(), *left.parameters()], [*second.model.parameters(), *right.parameters()], strict=True
    ):
        assert torch.equal(one, other)


def test_without_unlabelled_rows_or_a_shared_representation_it_says_so() -> None:
    with pytest.raises(ConfigError, match="training.quotas"):
        make_trainer(DomainAdversarial(), quotas=())
    with pytest.raises(ConfigError, match="shared trunk"):
        make_trainer(DomainAdversarial(), sharing=Separate)


def test_settings_out_of_range_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        DomainAdversarial(-1.0, schedule="late", sharpness=0.0, hidden=(0,), dropout=1.0)  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5


def test_the_plan_of_the_card_trains_on_a_suite_with_unlabelled_rows(tmp_path: Any) -> None:
    suite = rotated_moons(num_source=80, num_target=80, num_test=8)
    labels = suite.targets["moon"].copy()
    labels[suite.splits["target"]] = -1
    splits = {**suite.splits, "train": np.concatenate([suite.splits["train"], suite.splits["target"]])}
    suite = suite.with_targets({"moon": labels}).with_splits(splits)
    learner = NeuralLearner(LearnerContext(suite=suite, plan=card_plan("dann"), seed=0, max_steps=3, cache=tmp_path))
    learner.train(3)
    assert learner.trainer.stream.batch_size == 128
    assert isinstance(learner.trainer.objectives[0], DomainAdversarial)
    assert len(learner.predict(suite.splits["test"])["moon"]) == 8


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(2, 6))
def test_the_mean_discrepancy_is_zero_for_equal_samples_and_symmetric(seed: int, first: int, second: int) -> None:
    random = torch.Generator().manual_seed(seed)
    left, right = torch.randn(first, 3, generator=random), torch.randn(second, 3, generator=random) + 1.0
    torch.testing.assert_close(mean_discrepancy(left, left), torch.zeros(()), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(mean_discrepancy(left, right), mean_discrepancy(right, left))
    assert float(mean_discrepancy(left, right + 5.0)) > 0.0
