from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from graftwork.claims.plan_arms import card_plan
from graftwork.core.batch import UNLABELLED
from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.domain_pairs import rotated_moons
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.distill_similar import SourceClasses
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.trainer import TrainConfig, Trainer

RANDOM = np.random.default_rng(0)
FIRST, SECOND = (RANDOM.dirichlet(np.ones(classes), 200).astype(np.float32) for classes in (4, 7))
QUOTAS = ({"role": "labelled", "rows": 8}, {"role": "unlabelled", "rows": 6})


@pytest.fixture
def answers(tmp_path: Path) -> tuple[str, str]:
    first = store_answers(tmp_path, "1", "first", 200, lambda rows: {"classes": FIRST[rows]})
    second = store_answers(tmp_path, "2", "second", 200, lambda rows: {"classes": SECOND[rows]})
    return str(first), str(second)


def trainer(objective: SourceClasses) -> Trainer:
    suite = rotated_moons(num_source=40, num_target=40, num_test=8)
    labels = suite.targets["moon"].copy()
    labels[suite.splits["target"]] = -1
    suite = suite.with_targets({"moon": labels})
    rows = np.concatenate([suite.splits["train"], suite.splits["target"]])
    torch.manual_seed(0)
    model = SharedTrunk(
        suite.tasks, lambda: TableBackbone(2, width=8, num_blocks=1, dropout=0.0), inputs=suite.input_specs, head_hidden=0
    )
    return Trainer(
        model,
        suite.tasks,
        BatchStream(suite, rows, 8, 0, quotas=QUOTAS),
        balancer=EqualWeights(),
        objectives=[objective],
        config=TrainConfig(max_steps=30, quotas=QUOTAS, learning_rate=0.01, warmup_steps=0, schedule="constant"),
        seeds=Seeds(0),
    )


def term(made: Trainer) -> tuple[Tensor, ObjectiveInputs]:
    batch = made.stream.batch(0)
    representation = made.model.encode(batch.inputs)
    assert isinstance(representation, Tensor)
    inputs = ObjectiveInputs(batch, made.model, made.model.decode(representation), torch.zeros(1), representation, 0)
    return made.objectives[0].loss(inputs), inputs


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_term_is_the_weighted_cross_entropy_in_the_sources_classes(answers: tuple[str, str], temperature: float) -> None:
    made = trainer(SourceClasses(answers, weight=4.0, teacher_weights=[3.0, 1.0], temperature=temperature))
    found, inputs = term(made)
    assert bool((inputs.batch.role == UNLABELLED).any()), "rows without labels are taught as well"
    module: Any = made.objectives[0].module
    expected = 0.0
    for number, (classes, share) in enumerate(((FIRST, 0.75), (SECOND, 0.25))):
        logits = module[str(number)](inputs.representation).detach().numpy().astype(np.float64) / temperature
        log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        soft = classes[inputs.batch.rows.numpy()].astype(np.float64) ** (1 / temperature)
        soft /= soft.sum(axis=1, keepdims=True)
        expected += share * float(-(soft * log).sum(axis=1).mean())
    assert found.item() == pytest.approx(4.0 * expected, rel=1e-4)


def test_the_nearest_source_alone_has_a_head(answers: tuple[str, str]) -> None:
    made = trainer(SourceClasses(answers, teacher_weights=[0.0, 1.0]))
    module: Any = made.objectives[0].module
    assert list(module) == ["1"]
    assert module["1"].out_features == 7
    found, _ = term(made)
    assert found.item() == pytest.approx(term(trainer(SourceClasses(answers[1:])))[0].item(), rel=0.5)


def test_heads_of_the_sources_learn_and_are_no_part_of_the_student(answers: tuple[str, str]) -> None:
    made = trainer(SourceClasses(answers))
    first = term(made)[0].item()
    names = set(made.model.state_dict())
    made.train(30)
    assert term(made)[0].item() < first
    assert set(made.model.state_dict()) == names
    own = {id(parameter) for parameter in made.model.parameters()}
    module: Any = made.objectives[0].module
    assert not own & {id(parameter) for parameter in module.parameters()}


def test_the_plan_on_the_card_draws_rows_without_labels() -> None:
    plan = card_plan("distill-similar")
    assert [quota["role"] for quota in plan.train.training["quotas"]] == ["labelled", "unlabelled"]
    assert plan.train.objectives[0].settings["weight"] == 4.0


def test_sources_without_classes_and_wrong_temperatures_are_refused(answers: tuple[str, str], tmp_path: Path) -> None:
    other = store_answers(tmp_path, "3", "features alone", 200, lambda rows: {"features": FIRST[rows]})
    with pytest.raises(ConfigError, match="features alone has no classes of its own; its stored answers hold features"):
        trainer(SourceClasses([str(other)]))
    with pytest.raises(ConfigError, match="temperature must be a number above 0; got nan"):
        SourceClasses(answers, temperature=float("nan"))
