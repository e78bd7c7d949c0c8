"""The terms of distillation, each against its formula on the first batch; taps, weights of teachers, resuming, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.methods.distillation.attention import AttentionTransfer
from graftwork.methods.distillation.feature import FeatureDistillation, feature_scale
from graftwork.methods.distillation.logit import LogitDistillation
from graftwork.methods.distillation.relational import RelationalDistillation
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.distill_losses import angle_loss, attention_loss, distance_loss
from graftwork.training.trainer import TrainConfig, Trainer

ROWS = 24
TASKS = (TaskSpec(name="a/b", kind="multiclass", size=3), TaskSpec(name="flag", kind="binary", size=1))
RANDOM = np.random.default_rng(0)
ANSWERS = {
    "features": RANDOM.standard_normal((ROWS, 6)).astype(np.float32),
    "outputs/a/b": RANDOM.standard_normal((ROWS, 3)).astype(np.float32),
    "vectors/top": RANDOM.standard_normal((ROWS, 5)).astype(np.float32),
    "maps/top": RANDOM.random((ROWS, 4, 4)).astype(np.float32),
}
PICTURES = RANDOM.integers(0, 255, (ROWS, 16, 16, 3)).astype(np.uint8)
QUOTAS = ({"role": "labelled", "rows": 6}, {"role": "unlabelled", "rows": 4})


def suite() -> Suite:
    labels = np.arange(ROWS) % 3
    return Suite(
        name="pictures",
        tasks=TASKS,
        input_specs=image_input(16),
        inputs={"image": PICTURES},
        # The last third has no labels.
        targets={name: np.where(np.arange(ROWS) < 16, labels % size, -1) for name, size in (("a/b", 3), ("flag", 2))},
        splits={"train": np.arange(ROWS)},
    )


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of two teachers; the second one knows features alone."""
    folder = tmp_path_factory.mktemp("cache")
    first = store_answers(folder, "one", "first", ROWS, lambda rows: {name: array[rows] for name, array in ANSWERS.items()})
    second = store_answers(folder, "two", "second", ROWS, lambda rows: {"features": 2 * ANSWERS["features"][rows, :4]})
    return str(first), str(second)


def trainer(*objectives: Objective, sharing: Any = SharedTrunk, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    data = suite()
    model = sharing(TASKS, lambda: ConvBackbone(16), inputs=data.input_specs)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return Trainer(
        model,
        TASKS,
        BatchStream(data, data.splits["train"], 8, 0, quotas=QUOTAS),
        balancer=EqualWeights(),
        objectives=objectives,
        config=TrainConfig(max_steps=6, quotas=QUOTAS, **settings),
        seeds=Seeds(0),
    )


def step(made: Trainer, objective: Objective) -> tuple[Tensor, ObjectiveInputs]:
    """Return the term of the first batch as the training loop computes it, and what it saw."""
    batch = made.stream.batch(0)
    with objective.watching(made.model):
        representation = made.model.encode_batch(batch)
        outputs = made.model.decode(representation)
    assert isinstance(representation, Tensor)
    inputs = ObjectiveInputs(batch, made.model, outputs, torch.zeros(2), representation, 0)
    return objective.loss(inputs), inputs


def test_logits_count_rows_without_labels_and_only_the_teachers_tasks(answers: tuple[str, str]) -> None:
    objective = LogitDistillation(answers[:1], weight=3.0, temperature=4.0)
    term, inputs = step(trainer(objective), objective)
    teacher = torch.from_numpy(ANSWERS["outputs/a/b"][inputs.batch.rows.numpy()])
    one, two = (F.log_softmax(part / 4, dim=1) for part in (teacher, inputs.outputs["a/b"]))
    assert len(inputs.batch) == 10
    torch.testing.assert_close(term, 3 * 16 * (one.exp() * (one - two)).sum(dim=1).mean())


def test_teachers_are_weighed_and_a_weight_of_nothing_leaves_one_out(answers: tuple[str, str]) -> None:
    def value(folders: tuple[str, ...], weights: list[float] | None) -> float:
        objective = RelationalDistillation(folders, teacher_weights=weights)
        return step(trainer(objective), objective)[0].item()

    both, first, second = value(answers, [3.0, 1.0]), value(answers[:1], None), value(answers[1:], None)
    assert both == pytest.approx(0.75 * first + 0.25 * second, rel=1e-5)
    assert value(answers, [0.0, 2.0]) == pytest.approx(second, rel=1e-6)
    assert value(answers, None) == pytest.approx(0.5 * (first + second), rel=1e-5)


def test_features_go_through_a_learned_map_to_the_scaled_ones_of_the_teacher(answers: tuple[str, str]) -> None:
    objective = FeatureDistillation(answers)
    made = trainer(objective)
    term, inputs = step(made, objective)
    module: Any = objective.module
    expected = 0.0
    for number, features in enumerate((ANSWERS["features"], 2 * ANSWERS["features"][:, :4])):
        scaled = (features - features.mean(axis=0)) / features.std(axis=0)
        mapped = module.maps[number](inputs.representation).detach().numpy()
        expected += 0.5 * float(((mapped - scaled[inputs.batch.rows.numpy()]) ** 2).mean())
    assert term.item() == pytest.approx(expected, rel=1e-4)
    before = module.maps[0].weight.detach().clone()
    made.train(2)
    assert not torch.equal(before, module.maps[0].weight)
    # What is learned for the teacher's sake is no part of the model.
    assert not {id(p) for p in made.model.parameters()} & {id(p) for p in module.parameters()}


def test_constant_features_are_not_blown_up() -> None:
    values = np.stack([np.arange(9.0), np.full(9, 5.0) + 1e-9 * np.arange(9)], axis=1)
    mean, spread = feature_scale(values)
    assert mean.tolist() == pytest.approx([4.0, 5.0])
    assert spread.tolist() == pytest.approx([float(np.arange(9.0).std()), 1.0])


def test_taps_read_the_steps_own_pass_and_leave_no_hooks(answers: tuple[str, str]) -> None:
    data = trainer()
    path = next(name for name, module in data.model.named_modules() if isinstance(module, nn.Conv2d))
    objective = AttentionTransfer(answers[:1], weight=1.0, tap=path, teacher_tap="top")
    made = trainer(objective)
    seen: list[Tensor] = []
    module = made.model.get_submodule(path)
    handle = module.register_forward_hook(lambda module, arguments, output: seen.append(output))
    term, inputs = step(made, objective)
    handle.remove()
    assert len(seen) == 1, "the term runs the student no second time"
    teacher = torch.from_numpy(ANSWERS["maps/top"][inputs.batch.rows.numpy()])
    torch.testing.assert_close(term, attention_loss(seen[0].square().mean(dim=1), teacher))
    made.train(2)
    assert not module._forward_hooks


def test_relations_are_distances_and_angles(answers: tuple[str, str]) -> None:
    objective = RelationalDistillation(answers[:1], distance=3.0, angle=0.5, teacher_tap="top")
    term, inputs = step(trainer(objective), objective)
    assert inputs.representation is not None
    teacher = torch.from_numpy(ANSWERS["vectors/top"][inputs.batch.rows.numpy()])
    expected = 3 * distance_loss(inputs.representation, teacher) + 0.5 * angle_loss(inputs.representation, teacher)
    torch.testing.assert_close(term, expected)


def test_each_term_pulls_the_student_to_the_teacher(answers: tuple[str, str]) -> None:
    for objective in (
        LogitDistillation(answers[:1]),
        FeatureDistillation(answers),
        RelationalDistillation(answers[:1]),
    ):
        made = trainer(objective, learning_rate=1e-3, schedule="constant", warmup_steps=0)
        before = step(made, objective)[0].item()
        made.train(6)
        assert step(made, objective)[0].item() < before, type(objective).__name__


def test_a_training_goes_on_with_the_same_bits(answers: tuple[str, str]) -> None:
    def fresh() -> Trainer:
        return trainer(FeatureDistillation(answers), LogitDistillation(answers[:1]))

    whole, first, second = fresh(), fresh(), fresh()
    whole.train(6)
    first.train(3)
    second.load_state_dict(first.state_dict())
    second.train(6)
    assert all(torch.equal(one, two) for one, two in zip(whole.model.parameters(), second.model.parameters(), strict=True))


def test_what_cannot_be_used_is_refused_with_what_to_do(answers: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no answers of teachers. `graftwork distill --teacher"):
        trainer(LogitDistillation())
    with pytest.raises(ConfigError, match="second answers none of the tasks a/b, flag. Distil its features"):
        trainer(LogitDistillation(answers))
    with pytest.raises(ConfigError, match="weight must be a number of at least 0; got -1"):
        LogitDistillation(answers, weight=-1)
    with pytest.raises(ConfigError, match="one weight a teacher \\(2\\); got 1"):
        LogitDistillation(answers, teacher_weights=[1.0])
    with pytest.raises(ConfigError, match="one weight above 0"):
        LogitDistillation(answers, teacher_weights=[0.0, 0.0])
    with pytest.raises(ConfigError, match="temperature must be a number above 0; got 0"):
        LogitDistillation(answers, temperature=0)
    with pytest.raises(
        ConfigError, match="hold no outputs of its module 'low'; they hold outputs/a/b, vectors/top, maps/top, features"
    ):
        trainer(FeatureDistillation(answers[:1], teacher_tap="low"))
    with pytest.raises(ConfigError, match="hold no map of its module 'low'; modules with maps: 'top'"):
        trainer(AttentionTransfer(answers[:1], tap="backbone.stages.0", teacher_tap="low"))
    with pytest.raises(ConfigError, match="has no module 'trnk'"):
        trainer(FeatureDistillation(answers, tap="trnk"))
    with pytest.raises(ConfigError, match="shares no representation between its tasks"):
        trainer(FeatureDistillation(answers), sharing=Separate)
    short = store_answers(tmp_path, "short", "short", 4, lambda rows: {"features": ANSWERS["features"][rows]})
    with pytest.raises(ConfigError, match="have 4 rows, and the batch holds row"):
        trainer(RelationalDistillation([str(short)])).train(1)
    other = store_answers(tmp_path, "other", "other", ROWS, lambda rows: {"outputs/a/b": ANSWERS["features"][rows]})
    with pytest.raises(ConfigError, match="gives 6 outputs for the task a/b, the student 3"):
        trainer(LogitDistillation([str(other)]))
