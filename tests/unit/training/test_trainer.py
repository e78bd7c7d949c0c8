from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SHARING, assert_equal_weights, small_model, small_suite, small_trainer, weights_of
from torch import Tensor, nn

from graftwork.core.errors import CheckpointError, ConfigError, TrainingDivergedError
from graftwork.core.input_spec import table_input
from graftwork.core.records import Component, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.balancer import BackwardContext, Balancer, WeightBalancer
from graftwork.interfaces.callback import Callback, LoopView
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.tasks.decode import decode_output
from graftwork.tasks.losses import task_loss
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.trainer import TrainConfig, Trainer

SUITE = small_suite()


class Learned(WeightBalancer):
    """Learned weights, and a memory over epochs."""

    def __init__(self) -> None:
        self.scores = nn.Parameter(torch.zeros(3))
        self.epochs: list[list[float]] = []

    def scalarize(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.softmax(self.scores, dim=0)
        return losses @ weights, weights

    def parameters(self) -> list[nn.Parameter]:
        return [self.scores]

    def end_epoch(self, mean_losses: Tensor) -> None:
        self.epochs.append(mean_losses.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": [list(row) for row in self.epochs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = [list(row) for row in state["epochs"]]


class NoisyPenalty(Objective):
    """A learned and random penalty on the representation."""

    def __init__(self) -> None:
        self.direction = nn.Parameter(torch.ones(16))

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        assert inputs.representation is not None
        return (inputs.representation * self.direction).square().mean() * torch.rand(()) + self.direction.square().mean()

    def parameters(self) -> list[nn.Parameter]:
        return [self.direction]


class LossLog(Callback):
    """The losses of every step."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        self.losses.append(losses.tolist())

    def state_dict(self) -> dict[str, Any]:
        return {"losses": [list(row) for row in self.losses]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = [list(row) for row in state["losses"]]


class TwoPasses(Balancer):
    """The plain sum, with its own backward pass."""

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        losses.sum().backward()
        return None


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    runs = []
    for seed in (0, 0, 1):
        trainer = small_trainer(SUITE, "mmoe", seed=seed, ema_decay=0.9)
        trainer.train(20)
        runs.append(weights_of(trainer.eval_model()))
    assert_equal_weights(runs[0], runs[1])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("sharing", sorted(SHARING))
def test_slices_with_a_save_and_load_between_them_change_nothing(tmp_path: Path, sharing: str, optimizer: str) -> None:
    options: dict[str, Any] = {"ema_decay": 0.95, "optimizer": optimizer, "learning_rate": 1e-2}
    whole = small_trainer(SUITE, sharing, **options)
    whole.train(40)
    first = small_trainer(SUITE, sharing, **options)
    first.train(13)
    save_checkpoint(tmp_path, first.state_dict())
    torch.manual_seed(99)  # the global generator is no part of a run
    second = small_trainer(SUITE, sharing, **options)
    second.load_state_dict(load_checkpoint(tmp_path))
    assert second.step == 13
    second.train(29)
    second.train(40)
    assert_equal_weights(weights_of(whole.model), weights_of(second.model))
    assert_equal_weights(weights_of(whole.eval_model()), weights_of(second.eval_model()))


def test_parts_with_state_of_their_own_resume_too(tmp_path: Path) -> None:
    def build() -> tuple[Trainer, Learned, NoisyPenalty, LossLog]:
        parts = Learned(), NoisyPenalty(), LossLog()
        return small_trainer(SUITE, balancer=parts[0], objectives=[parts[1]], callbacks=[parts[2]]), *parts

    whole = build()
    whole[0].train(25)
    half = build()
    half[0].train(11)
    save_checkpoint(tmp_path, half[0].state_dict())
    rest = build()
    rest[0].load_state_dict(load_checkpoint(tmp_path))
    rest[0].train(25)
    assert_equal_weights(weights_of(whole[0].model), weights_of(rest[0].model))
    assert torch.equal(whole[1].scores, rest[1].scores)
    assert bool(whole[1].scores.any())
    assert torch.equal(whole[2].direction, rest[2].direction)
    assert whole[1].epochs == rest[1].epochs
    assert len(whole[1].epochs) == 25 // whole[0].stream.steps_per_epoch
    assert whole[3].losses == rest[3].losses
    assert len(whole[3].losses) == 25


def test_a_step_equals_one_of_a_bare_loop() -> None:
    options: dict[str, Any] = {"schedule": "constant", "warmup_steps": 0, "weight_decay": 0.01, "grad_clip": 0.5}
    trainer = small_trainer(SUITE, "shared", **options)
    bare = small_model(SUITE)
    decayed = [p for p in bare.parameters() if p.ndim > 1]
    plain = [p for p in bare.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=trainer.config.learning_rate)
    bare.train()
    torch.set_rng_state(Seeds(0).torch("dropout").get_state())
    for step in range(5):
        batch = trainer.stream.batch(step)
        outputs = bare(batch.inputs)
        loss = sum((task_loss(task, outputs[task.name], batch.targets[task.name]) for task in SUITE.tasks), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(bare.parameters(), 0.5)
        optimizer.step()
    trainer.train(5)
    for name, tensor in weights_of(bare).items():
        torch.testing.assert_close(trainer.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


def test_one_backward_pass_or_two_give_the_same_gradients() -> None:
    results = []
    for balancer in (Component("graftwork.methods.optimization.equal_weights:EqualWeights").build(), TwoPasses()):
        trainer = small_trainer(SUITE, balancer=balancer, objectives=[NoisyPenalty()])
        trainer.train(3)
        results.append(weights_of(trainer.model))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-4, atol=1e-6)


def test_training_learns() -> None:
    trainer = small_trainer(SUITE, max_steps=150, learning_rate=1e-2, ema_decay=0.9)
    rows = SUITE.splits["train"]

    def loss() -> float:
        batch = trainer.stream.source.batch(rows)
        with torch.no_grad():
            return float(trainer.losses(trainer.eval_model()(batch.inputs), batch).sum())

    before = loss()
    trainer.train(150)
    assert loss() < 0.5 * before


def test_separate_models_do_not_hold_each_other_back() -> None:
    """One task with huge gradients must not shrink the steps of another by clipping."""
    weighted = Component("graftwork.methods.optimization.equal_weights:EqualWeights", {"weights": [1.0, 1.0, 1e6]})
    plain = small_trainer(SUITE, "separate", grad_clip=0.1, optimizer="sgd")
    loud = small_trainer(SUITE, "separate", grad_clip=0.1, optimizer="sgd", balancer=weighted.build())
    plain.train(5)
    loud.train(5)
    for task in ("sign", "level"):
        for mine, theirs in zip(plain.model.task_parameters(task), loud.model.task_parameters(task), strict=True):
            assert torch.equal(mine, theirs)


def test_frozen_parameters_stay_and_are_not_stored() -> None:
    trainer = small_trainer(SUITE)
    for parameter in trainer.model.shared_parameters():
        parameter.requires_grad_(False)
    frozen = [parameter.detach().clone() for parameter in trainer.model.shared_parameters()]
    again = Trainer(
        trainer.model,
        SUITE.tasks,
        trainer.stream,
        balancer=TwoPasses(),
        config=TrainConfig(max_steps=5, batch_size=16, ema_decay=0.9),
        seeds=Seeds(0),
    )
    again.train(5)
    assert all(torch.equal(p, old) for p, old in zip(trainer.model.shared_parameters(), frozen, strict=True))
    assert not any(name.startswith("backbone") and name.endswith("weight") for name in again.state_dict()["model"])
    for parameter in trainer.model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="Nothing learns: every parameter of the model is frozen"):
        small = again
        Trainer(small.model, SUITE.tasks, small.stream, balancer=TwoPasses(), config=small.config, seeds=Seeds(0))


def test_backbones_have_their_own_rate() -> None:
    trainer = small_trainer(SUITE, backbone_lr_scale=0.1, warmup_steps=0, schedule="constant")
    trainer.train(1)
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {round(rates[id(p)], 9) for p in trainer.model.shared_parameters()} == {2e-4}
    assert {round(rates[id(p)], 9) for p in trainer.model.task_parameters("sign")} == {2e-3}


def test_averaged_weights_are_what_predicts() -> None:
    trainer = small_trainer(SUITE, ema_decay=0.9, learning_rate=1e-2)
    name, live = next(iter(trainer.model.named_parameters()))
    reference = live.detach().clone()
    for step in range(1, 6):
        trainer.train(step)
        reference.lerp_(live.detach(), 1.0 - min(0.9, (1 + step) / (10 + step)))
    shown = dict(trainer.eval_model().named_parameters())[name]
    torch.testing.assert_close(shown, reference)
    assert not torch.equal(shown, live)
    assert not trainer.eval_model().training


def test_divergence_is_an_error_that_names_the_task() -> None:
    amount = SUITE.targets["amount"].copy()
    amount[SUITE.splits["train"][0]] = np.inf
    trainer = small_trainer(SUITE.with_targets({"amount": amount}), evaluations=0)
    with pytest.raises(
        TrainingDivergedError, match=r"the loss of amount became NaN or infinite by step \d+. Lower learning_rate"
    ):
        trainer.train(40)


def test_a_stop_from_outside_leaves_the_trainer_whole() -> None:
    class StopError(Exception):
        pass

    def stop_at(step: int) -> None:
        if step == 7:
            raise StopError

    whole = small_trainer(SUITE)
    whole.train(20)
    stopped = small_trainer(SUITE)
    with pytest.raises(StopError):
        stopped.train(20, stop_at)
    assert stopped.step == 7
    stopped.train(20)
    assert_equal_weights(weights_of(whole.model), weights_of(stopped.model))


def test_training_leaves_the_global_generator_alone() -> None:
    trainer = small_trainer(SUITE, "mmoe")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer.train(3)
    assert torch.equal(before, torch.get_rng_state())


def test_predictions_follow_the_rows_and_the_asked_tasks() -> None:
    trainer = small_trainer(SUITE)
    rows = SUITE.splits["test"][::-1].copy()
    found = trainer.predict(SUITE, rows, ["amount"], batch_size=7)
    assert list(found) == ["amount"]
    model = trainer.eval_model()
    batch = trainer.stream.source.batch(rows)
    expected = decode_output(SUITE.task("amount"), model(batch.inputs)["amount"])
    np.testing.assert_allclose(found["amount"], expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    everything = trainer.predict(trainer.stream, rows)
    assert {name: len(values) for name, values in everything.items()} == dict.fromkeys(SUITE.task_names, len(rows))


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, small_trainer(SUITE, "mmoe").state_dict())
    with pytest.raises(CheckpointError, match="belongs to another model: these tensors are in one of both only"):
        small_trainer(SUITE).load_state_dict(load_checkpoint(tmp_path))
    save_checkpoint(tmp_path, small_trainer(SUITE).state_dict())
    with pytest.raises(CheckpointError, match="weight averaging differs"):
        small_trainer(SUITE, ema_decay=0.9).load_state_dict(load_checkpoint(tmp_path))


def test_callbacks_hear_of_every_step_and_of_the_end() -> None:
    class Log(Callback):
        def __init__(self) -> None:
            self.events: list[Any] = []

        def on_start(self, loop: LoopView) -> None:
            self.events.append("start")

        def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
            assert losses.shape == (3,)
            assert not losses.requires_grad
            self.events.append((loop.step, len(batch)))

        def on_end(self, loop: LoopView) -> None:
            self.events.append("end")

    log = Log()
    small_trainer(SUITE, callbacks=[log]).train(2)
    assert log.events == ["start", (1, 16), (2, 16), "end"]


def test_epoch_means_count_only_batches_with_labels() -> None:
    """Of two batches an epoch one has no label of the task: the mean is that of the other."""
    sign = np.full(32, -1)
    level = np.arange(32) % 4
    suite = Suite(
        name="gaps",
        input_specs=table_input(4, [3]),
        tasks=(TaskSpec(name="sign", kind="binary", size=1), TaskSpec(name="level", kind="multiclass", size=4)),
        inputs={"numeric": np.zeros((32, 4), dtype=np.float32), "categorical": np.zeros((32, 1), dtype=np.int64)},
        targets={"sign": sign, "level": level},
        splits={"train": np.arange(32)},
    )
    stream = BatchStream(suite, np.arange(32), 16, seed=0)
    sign[stream.rows_of(0)[:3]] = 1
    suite = suite.with_targets({"sign": sign})

    class Watch(Learned):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Parameter(torch.zeros(2))

    seen: list[list[float]] = []

    class Log(Callback):
        def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
            seen.append(losses.tolist())

    watch = Watch()
    trainer = Trainer(
        small_model(suite),
        suite.tasks,
        BatchStream(suite, np.arange(32), 16, seed=0),
        balancer=watch,
        config=TrainConfig(max_steps=2, batch_size=16),
        seeds=Seeds(0),
        callbacks=[Log()],
    )
    trainer.train(2)
    assert seen[1][0] == 0.0
    assert watch.epochs[0][0] == pytest.approx(seen[0][0])
    assert watch.epochs[0][1] == pytest.approx((seen[0][1] + seen[1][1]) / 2)
