from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.claims.plan_arms import card_plan
from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.domain_pairs import rotated_moons
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.binding import Binding, SuiteFacts
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.kd_any import PartitionedDistillation, surest
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.trainer import TrainConfig, Trainer

CLASSES = TaskSpec(name="level", kind="multiclass", size=3)
YES = TaskSpec(name="flag", kind="binary", size=1)


def logits(*rows: tuple[float, float, float]) -> Tensor:
    return torch.tensor(rows).log()


def test_each_row_goes_to_the_surest_of_the_label() -> None:
    copy = logits((0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.4, 0.3, 0.3))
    teacher = logits((0.1, 0.8, 0.1), (0.5, 0.4, 0.1), (0.4, 0.3, 0.3))
    # The label of the first row is what the teacher thinks, that of the second what the copy thinks; the third is a draw.
    assert surest(CLASSES, [copy, teacher], torch.tensor([1, 1, 0])).tolist() == [1, 0, 0]
    # Without labels the surer model counts, right or wrong.
    assert surest(CLASSES, [copy, teacher], None).tolist() == [1, 0, 0]
    assert surest(CLASSES, [copy, teacher], torch.tensor([0, 0, -1])).tolist() == [0, 1, 0]
    third = logits((0.05, 0.9, 0.05), (0.1, 0.1, 0.8), (0.0, 0.5, 0.5))
    assert surest(CLASSES, [copy, teacher, third], None).tolist() == [2, 2, 2]


def test_of_two_classes_a_sure_no_is_as_sure_as_a_sure_yes() -> None:
    copy, teacher = torch.tensor([[2.0], [-3.0]]), torch.tensor([[-4.0], [1.0]])
    assert surest(YES, [copy, teacher], None).tolist() == [1, 0]
    assert surest(YES, [copy, teacher], torch.tensor([1, 1])).tolist() == [0, 1]


ROWS = 80
OUTPUTS = 3 * np.random.default_rng(0).standard_normal((ROWS, 2)).astype(np.float32)


@pytest.fixture
def answers(tmp_path: Path) -> str:
    return str(store_answers(tmp_path, "k", "other", 400, lambda rows: {"outputs/moon": np.resize(OUTPUTS, (400, 2))[rows]}))


def trainer(objective: PartitionedDistillation, **settings: Any) -> Trainer:
    suite = rotated_moons(num_source=40, num_target=40, num_test=8)
    torch.manual_seed(0)
    model = SharedTrunk(
        suite.tasks, lambda: TableBackbone(2, width=8, num_blocks=1, dropout=0.3), inputs=suite.input_specs, head_hidden=0
    )
    plan = card_plan("kd-any")
    balancer: Any = plan.train.optimization.build()
    assert isinstance(balancer, EqualWeights)
    config = TrainConfig(**{"max_steps": 8, "batch_size": 16, **plan.train.training, **settings})
    stream = BatchStream(suite, suite.splits["train"], 16, 0)
    return Trainer(model, suite.tasks, stream, balancer=balancer, objectives=[objective], config=config, seeds=Seeds(0))


def term(made: Trainer) -> tuple[Tensor, ObjectiveInputs]:
    batch = made.stream.batch(0)
    representation = made.model.encode(batch.inputs)
    assert isinstance(representation, Tensor)
    inputs = ObjectiveInputs(batch, made.model, made.model.decode(representation), torch.zeros(1), representation, 0)
    return made.objectives[0].loss(inputs), inputs


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_term_is_the_papers_formula_row_by_row(answers: str, temperature: float) -> None:
    made = trainer(PartitionedDistillation([answers], weight=2.0, temperature=temperature))
    made.model.eval()  # without dropout the student is its copy
    with torch.no_grad():
        before = made.model(made.stream.batch(0).inputs)["moon"]
        for parameter in made.model.parameters():
            parameter.add_(0.1)
    found, inputs = term(made)
    expected = []
    for row, number in enumerate(inputs.batch.rows.tolist()):
        label = int(inputs.batch.targets["moon"][row])
        teacher = torch.from_numpy(np.resize(OUTPUTS, (400, 2))[number])
        sure = [one.softmax(dim=0)[label].item() for one in (before[row], teacher)]
        reference = (teacher if sure[1] > sure[0] else before[row]) / temperature
        mine = inputs.outputs["moon"][row] / temperature
        p, q = reference.softmax(dim=0), mine.softmax(dim=0)
        expected.append(temperature**2 * (p * (p / q).log()).sum())
    torch.testing.assert_close(found, 2 * torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_the_copy_stays_and_the_modes_of_the_model_too(answers: str) -> None:
    made = trainer(PartitionedDistillation([answers]))
    module: Any = made.objectives[0].module
    batch = made.stream.batch(0)
    before = module.outputs(made.model, batch.inputs)["moon"]
    made.train(4)
    made.model.train()
    after = module.outputs(made.model, batch.inputs)["moon"]
    assert torch.equal(before, after)
    assert not torch.equal(made.model.eval()(batch.inputs)["moon"], after)
    made.model.train()
    module.outputs(made.model, batch.inputs)
    assert all(part.training for part in made.model.modules())
    assert not list(module.parameters())


def test_a_student_with_tied_weights_is_copied_with_its_ties(answers: str) -> None:
    made = trainer(PartitionedDistillation([answers]))
    layers: list[Any] = [layer for layer in made.model.modules() if isinstance(layer, nn.Linear) and layer.out_features == 8]
    layers[1].bias = layers[0].bias
    assert len(list(made.model.named_parameters())) < len(made.model.state_dict())
    batch, facts = made.stream.batch(0), SuiteFacts(("moon",), (8,), (0,), 8, 1, 8)
    objective = PartitionedDistillation([answers])
    objective.bind(Binding(made.model, made.tasks, facts, batch, torch.device("cpu"), 0))
    module: Any = objective.module
    before = module.outputs(made.model, batch.inputs)["moon"]
    assert torch.equal(before, made.model.eval()(batch.inputs)["moon"])
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.1)
    assert torch.equal(module.outputs(made.model, batch.inputs)["moon"], before)


def test_a_teacher_that_is_never_surer_changes_nothing(tmp_path: Path) -> None:
    """With the frozen copy as the only reference the student stays where it is: the labels' own loss has no weight."""
    entry = store_answers(tmp_path, "k", "unsure", 400, lambda rows: {"outputs/moon": np.zeros((len(rows), 2))})
    made = trainer(PartitionedDistillation([str(entry)], mask="confidence"), weight_decay=0.0, learning_rate=0.1)
    for module in made.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    before = [parameter.detach().clone() for parameter in made.model.parameters()]
    made.train(4)
    for one, two in zip(before, made.model.parameters(), strict=True):
        torch.testing.assert_close(one, two.detach(), rtol=0, atol=1e-6)


def test_a_surer_teacher_moves_the_student_to_its_answers(tmp_path: Path) -> None:
    entry = store_answers(tmp_path, "k", "sure", 400, lambda rows: {"outputs/moon": np.tile([-3.0, 3.0], (len(rows), 1))})
    made = trainer(PartitionedDistillation([str(entry)], mask="confidence"), learning_rate=0.05, max_steps=40)
    first = float(term(made)[0].detach())
    made.train(40)
    assert float(term(made)[0].detach()) < 0.8 * first


def test_a_training_goes_on_with_the_same_bits(answers: str) -> None:
    whole, first, second = (trainer(PartitionedDistillation([answers])) for _ in range(3))
    whole.train(8)
    first.train(3)
    second.load_state_dict(first.state_dict())
    second.train(8)
    assert all(torch.equal(one, two) for one, two in zip(whole.model.parameters(), second.model.parameters(), strict=True))


def test_what_cannot_be_divided_is_refused(answers: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mask must be one of labels, confidence; got 'label'"):
        PartitionedDistillation([answers], mask="label")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature must be a number above 0"):
        PartitionedDistillation([answers], temperature=0.0)
    with pytest.raises(ConfigError, match="no answers of teachers"):
        trainer(PartitionedDistillation())
    features = store_answers(tmp_path, "f", "features alone", 400, lambda rows: {"features": np.ones((len(rows), 2))})
    with pytest.raises(ConfigError, match="features alone answers none of the tasks moon"):
        trainer(PartitionedDistillation([str(features)]))
    values = TaskSpec(name="amount", kind="regression", size=1, center=(0.0,), scale=(1.0,))
    made = trainer(PartitionedDistillation([answers]))
    facts = SuiteFacts(("a",), (8,), (0,), 8, 1, 8)
    binding = Binding(made.model, (values,), facts, made.stream.batch(0), torch.device("cpu"), 0)
    with pytest.raises(
        ConfigError, match="how sure models are of a class. The task 'amount' \\(regression\\) does not answer with one class"
    ):
        PartitionedDistillation([answers]).bind(binding)


def test_softmax_and_masks_agree_with_torch() -> None:
    outputs = torch.randn(6, 3)
    probabilities = F.softmax(outputs, dim=1)
    assert surest(CLASSES, [outputs, outputs.clone()], None).tolist() == [0] * 6  # the same probabilities: the copy stays
    assert surest(CLASSES, [torch.zeros(6, 3), outputs], None).tolist() == [
        int(row.max() > 1 / 3 + 1e-7) for row in probabilities
    ]
