from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import fft
from torch import Tensor
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suites.glyphs import glyphs
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.methods.distillation.scalekd import ScaleKD, direction_distance, without_constant
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.last_stage import LastStage
from graftwork.training.trainer import TrainConfig, Trainer

TEACHER: dict[str, Any] = {
    "path": "graftwork.nn.backbones.vit:ViTBackbone",
    "settings": {"image_size": 16, "patch": 4, "width": 8, "depth": 3, "num_heads": 2},
}
SUITE = glyphs(num_train=64, num_val=8, num_test=8, num_classes=4, size=16)
SAID = 2 * np.random.default_rng(0).standard_normal((len(SUITE), 4)).astype(np.float32)


def trainer(objective: ScaleKD, *, steps: int = 8) -> Trainer:
    torch.manual_seed(0)
    model = SharedTrunk(
        SUITE.tasks, lambda: ConvBackbone(16, channels=(4, 8, 8, 8), groups=2), inputs=SUITE.input_specs, head_hidden=0
    )
    config = TrainConfig(max_steps=steps, batch_size=8, learning_rate=1e-2, evaluations=0)
    stream = BatchStream(SUITE, SUITE.splits["train"], 8, 0)
    return Trainer(model, SUITE.tasks, stream, balancer=EqualWeights(), objectives=[objective], config=config, seeds=Seeds(0))


def term(made: Trainer, step: int = 0) -> Tensor:
    batch = made.stream.batch(step)
    (objective,) = made.objectives
    with objective.watching(made.model):
        representation = made.model.encode(batch.inputs)
    assert isinstance(representation, Tensor)
    inputs = ObjectiveInputs(batch, made.model, made.model.decode(representation), torch.zeros(1), representation, step)
    return objective.loss(inputs)


def test_the_varying_view_is_that_of_the_cosine_transform() -> None:
    maps = np.random.default_rng(0).standard_normal((2, 3, 5, 4))
    coefficients = fft.dctn(maps, axes=(2, 3), norm="ortho")
    coefficients[:, :, 0, 0] = 0.0
    expected = fft.idctn(coefficients, axes=(2, 3), norm="ortho")
    np.testing.assert_allclose(without_constant(torch.from_numpy(maps)).numpy(), expected, atol=1e-12)


def test_places_are_compared_by_direction_and_summed_up() -> None:
    one, two = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    expected = 0.0
    for row in range(2):
        for y in range(2):
            for x in range(2):
                a, b = one[row, :, y, x], two[row, :, y, x]
                expected += float((a / a.norm() - b / b.norm()).square().sum()) / 2
    torch.testing.assert_close(float(direction_distance(one, two)), expected)
    torch.testing.assert_close(direction_distance(one, 5.0 * one), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.fixture
def answers(tmp_path: Path) -> str:
    return str(store_answers(tmp_path, "k", "teacher", len(SUITE), lambda rows: {"outputs/letter": SAID[rows]}))


def test_the_term_is_the_papers_formula(answers: str) -> None:
    made = trainer(ScaleKD(TEACHER, answers=[answers], weight=3.0, stage=1, num_heads=2, temperature=2.0))
    (objective,) = made.objectives
    assert isinstance(objective, ScaleKD)
    assert objective.paths == ("backbone.stages.1", "backbone.stages.2")
    module: Any = objective.module
    assert set(module) == {"full_lower", "full_upper", "varying_lower", "varying_upper"}
    module.eval()
    found = term(made)
    batch = made.stream.batch(0)
    backbone: Any = made.model.backbone
    states = torch.relu(backbone.stem(batch.inputs["image"].permute(0, 3, 1, 2).float() / 127.5 - 1.0))
    maps = []
    for stage in backbone.stages:
        states = stage(states)
        maps.append(states)
    assert objective.stage is not None
    teacher: Any = objective.stage.backbone
    before = teacher.embed(batch.inputs)
    for block in teacher.blocks[:2]:
        before = block(before)
    grid = lambda tokens: tokens.transpose(1, 2).unflatten(2, (4, 4))  # noqa: E731
    goal = grid(teacher.norm(teacher.blocks[2](before)))
    expected = torch.zeros(())
    for view, factor in (("full", 0.08), ("varying", 0.06)):
        lower = teacher.norm(teacher.blocks[2](module[f"{view}_lower"](maps[1])))
        upper = module[f"{view}_upper"](maps[2], lower)
        for tokens in (lower, upper):
            one, two = grid(tokens), goal
            if view == "varying":
                one, two = (part - part.mean(dim=(2, 3), keepdim=True) for part in (one, two))
            expected = expected + 2 * factor * (F.normalize(one, dim=1) - F.normalize(two, dim=1)).square().sum() / 8
    said, own = torch.from_numpy(SAID[batch.rows.numpy()]) / 2.0, made.model(batch.inputs)["letter"] / 2.0
    expected = expected + 4 * (said.softmax(1) * (said.log_softmax(1) - own.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(found, 3 * expected, rtol=1e-4, atol=1e-5)


def test_the_teacher_stays_and_the_student_comes_nearer() -> None:
    made = trainer(ScaleKD(TEACHER, weight=5.0, stage=1, num_heads=2), steps=40)
    (objective,) = made.objectives
    assert isinstance(objective, ScaleKD)
    assert objective.stage is not None
    teacher = objective.stage.backbone
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    first = float(term(made).detach())
    made.train(40)
    assert float(term(made).detach()) < 0.8 * first
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(not module._forward_hooks for module in made.model.modules())


def test_gradients_go_through_the_teachers_last_stage_to_the_student() -> None:
    made = trainer(ScaleKD(TEACHER, stage=2, num_heads=2, beta=0.0))
    (objective,) = made.objectives
    assert isinstance(objective, ScaleKD)
    assert isinstance(objective.stage, LastStage)
    assert objective.stage.first == 1
    made.model.zero_grad()
    term(made).backward()
    assert made.model.backbone.stages[1][0].weight.grad.abs().sum() > 0  # type: ignore[union-attr, index]


def test_parts_can_be_left_out() -> None:
    for settings, expected in (
        ({"beta": 0.0}, {"full_lower", "full_upper"}),
        ({"alpha": 0.0}, {"varying_lower", "varying_upper"}),
        ({"taps": ["backbone.stages.2"]}, {"full_upper", "varying_upper"}),
        ({"taps": ["backbone.stages.0", ""]}, {"full_lower", "full_upper", "varying_lower", "varying_upper"}),
        ({"projector": "convolution"}, {"full_lower", "full_upper", "varying_lower", "varying_upper"}),
        ({"alpha": 0.0, "beta": 0.0}, set()),
    ):
        made = trainer(ScaleKD(TEACHER, stage=1, num_heads=2, **settings))  # type: ignore[arg-type]
        module: Any = made.objectives[0].module
        assert set(module) == expected
        assert bool(term(made).isfinite())
        made.train(2)


def test_a_training_goes_on_with_the_same_bits(answers: str) -> None:
    whole, first, second = (trainer(ScaleKD(TEACHER, answers=[answers], stage=1, num_heads=2)) for _ in range(3))
    whole.train(8)
    first.train(3)
    second.load_state_dict(first.state_dict())
    second.train(8)
    assert all(torch.equal(one, two) for one, two in zip(whole.model.parameters(), second.model.parameters(), strict=True))


def test_what_cannot_teach_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ScaleKD works on the blocks of a trunk, and ConvBackbone has none"):
        trainer(ScaleKD({"path": "graftwork.nn.backbones.cnn:ConvBackbone", "settings": {"image_size": 16}}))
    with pytest.raises(ConfigError, match="stage must be from 1 to 3"):
        trainer(ScaleKD(TEACHER, stage=4))
    with pytest.raises(ConfigError, match=r"num_heads must divide the teacher's width 8; got 3"):
        trainer(ScaleKD(TEACHER, stage=1, num_heads=3))
    with pytest.raises(ConfigError, match="cannot work with these settings") as caught:
        ScaleKD(TEACHER, stage=0, sharpness=0.0, projector="linear", taps=["a", "b", "c"])  # type: ignore[arg-type]
    assert len(caught.value.problems) == 4
    features = store_answers(tmp_path, "f", "features alone", len(SUITE), lambda rows: {"features": np.ones((len(rows), 2))})
    with pytest.raises(ConfigError, match="features alone answers none of the tasks letter"):
        trainer(ScaleKD(TEACHER, answers=[str(features)]))
    with pytest.raises(ConfigError, match=r"SharedTrunk has no module 'backbone.stage'"):
        trainer(ScaleKD(TEACHER, stage=1, taps=["backbone.stage"]))
