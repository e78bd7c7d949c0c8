"""The loop with steps that are no multi-task steps: it knows no tasks, and does for them what it does for tasks."""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_equal_weights, weights_of
from torch import Tensor, nn
from torch.nn import functional as F

import graftwork.interfaces.train_step
import graftwork.training.loop
from graftwork.core.errors import CheckpointError, ConfigError, TrainingDivergedError
from graftwork.core.seeds import Seeds
from graftwork.interfaces.callback import Callback, LoopView
from graftwork.interfaces.train_step import TrainStep
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop


class Points:
    """Points on a circle, a pure function of the step."""

    def __init__(self, bad_from: int | None = None) -> None:
        self.bad_from = bad_from

    def batch(self, step: int) -> Tensor:
        angle = torch.rand(32, generator=torch.Generator().manual_seed(step)) * 6.28
        points = torch.stack([angle.cos(), angle.sin()], dim=1)
        return points * float("inf") if self.bad_from is not None and step >= self.bad_from else points


class Denoising(TrainStep[Tensor]):
    """Predicts the noise that was added, at random levels: a diffusion model in small."""

    loss_names = ("noise",)

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Dropout(0.1), nn.Linear(32, 2))

    def backward(self, batch: Tensor, step: int) -> Tensor:
        level, noise = torch.rand(len(batch), 1), torch.randn_like(batch)
        noised = (1 - level).sqrt() * batch + level.sqrt() * noise
        loss = F.mse_loss(self.model(torch.cat([noised, level], dim=1)), noise)
        loss.backward()
        return loss.detach().unsqueeze(0)


class Contrast(TrainStep[Tensor]):
    """Two views of a point, one seen by a momentum teacher; a predictor and a temperature learn beside the model. Two losses, a
    queue as state."""

    loss_names = ("contrast", "spread")

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 8))
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.queue = torch.zeros(0, 8)
        self.seen: list[str] = []

    def prepare(self, seeds: Seeds, device: torch.device) -> None:
        torch.manual_seed(seeds.integer("predictor"))
        self.predictor = nn.Linear(8, 8)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"teacher": self.teacher, "predictor": self.predictor}

    def parameters(self) -> list[nn.Parameter]:
        return [self.log_scale]

    def clipping_groups(self, learned: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
        return [[p for p in learned if p is not self.log_scale], [self.log_scale]]

    def backward(self, batch: Tensor, step: int) -> Tensor:
        first, second = batch + 0.1 * torch.randn_like(batch), batch + 0.1 * torch.randn_like(batch)
        features = self.model(first)
        query, key = F.normalize(self.predictor(features), dim=1), F.normalize(self.teacher(second), dim=1)
        logits = query @ torch.cat([key, self.queue]).T * (self.log_scale.exp() * 5.0)
        losses = torch.stack([F.cross_entropy(logits, torch.arange(len(batch))), features.square().mean()])
        losses.sum().backward()
        self.queue = torch.cat([key, self.queue])[:64]
        return losses.detach()

    def before_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        self.seen.append("before")

    def after_clipping(self, learned: Sequence[nn.Parameter], step: int) -> None:
        self.seen.append("after")

    @torch.no_grad()
    def finish(self, batch: Tensor, losses: Tensor, step: int) -> None:
        for slow, fast in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            slow.lerp_(fast, 0.1)
        self.seen.append(f"finish {step}")

    def state_dict(self) -> dict[str, Any]:
        return {"queue": self.queue}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.queue = state["queue"].clone()


STEPS = {"denoising": Denoising, "contrast": Contrast}


def build(name: str, source: Any = None, callbacks: Sequence[Callback] = (), **settings: Any) -> Loop[Tensor]:
    config = LoopConfig(**{"max_steps": 60, "learning_rate": 1e-2, "ema_decay": 0.9, **settings})
    return Loop(STEPS[name](), source or Points(), config=config, seeds=Seeds(0), callbacks=callbacks)


class Losses(Callback):
    def __init__(self) -> None:
        self.rows: list[Tensor] = []

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        self.rows.append(losses)


@pytest.mark.parametrize("name", STEPS)
def test_other_steps_train(name: str) -> None:
    log = Losses()
    build(name, callbacks=[log], max_steps=200).train(200)
    first, last = torch.stack(log.rows[:20]).mean(dim=0), torch.stack(log.rows[-20:]).mean(dim=0)
    assert float(last[0]) < 0.9 * float(first[0])


@pytest.mark.parametrize("name", STEPS)
def test_other_steps_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole = build(name)
    whole.train(40)
    first = build(name)
    first.train(17)
    save_checkpoint(tmp_path, first.state_dict())
    torch.manual_seed(99)  # the global generator is no part of a run
    second = build(name)
    second.load_state_dict(load_checkpoint(tmp_path))
    assert second.step == 17
    second.train(29)
    second.train(40)
    assert_equal_weights(weights_of(whole.model), weights_of(second.model))
    assert_equal_weights(weights_of(whole.eval_model()), weights_of(second.eval_model()))
    for part, module in whole.train_step.modules().items():
        assert_equal_weights(weights_of(module), weights_of(second.train_step.modules()[part]))
    for mine, theirs in zip(whole.train_step.parameters(), second.train_step.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert bool(mine)


def test_weights_are_averaged_and_predict() -> None:
    loop = build("denoising")
    name, live = next(iter(loop.model.named_parameters()))
    reference = live.detach().clone()
    for step in range(1, 6):
        loop.train(step)
        reference.lerp_(live.detach(), 1.0 - min(0.9, (1 + step) / (10 + step)))
    shown = dict(loop.eval_model().named_parameters())[name]
    torch.testing.assert_close(shown, reference)
    assert not loop.eval_model().training


def test_divergence_is_noticed_and_the_loss_named() -> None:
    loop = build("contrast", Points(bad_from=3), max_steps=200)
    with pytest.raises(TrainingDivergedError, match=r"the loss of contrast, spread became NaN or infinite by step 50. Lower"):
        loop.train(200)
    assert loop.step == 50


def test_modules_and_parameters_beside_the_model_learn_and_are_set_to_training() -> None:
    loop = build("contrast")
    before = weights_of(loop.train_step.modules()["predictor"])
    teacher = loop.train_step.modules()["teacher"].eval()
    loop.train(1)
    assert teacher.training
    learned = {id(p) for group in loop.optimizer.param_groups for p in group["params"]}
    step = loop.train_step
    assert {id(p) for p in step.modules()["predictor"].parameters()} | {id(p) for p in step.parameters()} <= learned
    assert not {id(p) for p in teacher.parameters()} & learned, "a teacher that only follows is no parameter of the optimiser"
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(step.modules()["predictor"]).items())
    decays = {id(p): group["weight_decay"] for group in loop.optimizer.param_groups for p in group["params"]}
    assert decays[id(step.modules()["predictor"].weight)] > 0
    assert decays[id(step.parameters()[0])] == 0


def test_a_step_is_called_in_the_stated_order() -> None:
    loop = build("contrast")
    loop.train(2)
    assert isinstance(loop.train_step, Contrast)
    assert loop.train_step.seen == ["before", "after", "finish 1", "before", "after", "finish 2"]


def test_clipping_groups_have_a_norm_each() -> None:
    loop = build("contrast", grad_clip=1e-3, optimizer="sgd", momentum=0.0, weight_decay=0.0, schedule="constant", warmup_steps=0)
    before = weights_of(loop.model) | weights_of(loop.train_step.modules()["predictor"])
    scale = loop.train_step.parameters()[0].item()
    loop.train(1)
    after = weights_of(loop.model) | weights_of(loop.train_step.modules()["predictor"])
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    assert float(moved) == pytest.approx(1e-2 * 1e-3, rel=1e-2)
    assert abs(loop.train_step.parameters()[0].item() - scale) == pytest.approx(1e-2 * 1e-3, rel=1e-2)


@pytest.mark.parametrize(
    ("settings", "drop", "message"),
    [
        ({"ema_decay": 0.0}, "", "weight averaging differs"),
        ({}, "predictor", r"these tensors are in one of both only: predictor: bias, predictor: weight"),
        ({}, "parameters", "it has 0 parameters outside of modules, this training has 1"),
    ],
)
def test_the_state_of_another_step_is_refused(settings: dict[str, Any], drop: str, message: str) -> None:
    state = build("contrast").state_dict()
    if drop == "predictor":
        del state["modules"]["predictor"]
    elif drop == "parameters":
        state["parameters"] = []
    with pytest.raises(CheckpointError, match=message):
        build("contrast", **settings).load_state_dict(state)


def test_a_step_that_learns_nothing_is_refused() -> None:
    class Frozen(Denoising):
        def __init__(self) -> None:
            super().__init__()
            self.model.requires_grad_(False)

    with pytest.raises(ConfigError, match="Nothing learns"):
        Loop(Frozen(), Points(), config=LoopConfig(), seeds=Seeds(0))


def test_the_loop_knows_no_tasks() -> None:
    """Neither the loop nor what it imports for its steps names tasks, suites, balancers or shared models."""
    for module in (graftwork.training.loop, graftwork.interfaces.train_step):
        assert module.__file__ is not None
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        wrong = ("graftwork.tasks", "graftwork.data", "graftwork.core.batch", "graftwork.core.records")
        assert not {name for name in imported if name.startswith(wrong)}
        assert not imported & {f"graftwork.interfaces.{name}" for name in ("balancer", "objective", "shared_model", "transform")}
