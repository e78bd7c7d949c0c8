"""The seam for experiences that come one after the other, with the hardest methods of its docstring in small."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.core.batch import Batch
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream, RowSource
from graftwork.data.streams import ClassStream
from graftwork.data.suite import Suite
from graftwork.interfaces.callback import Callback, LoopView
from graftwork.interfaces.continual_method import ContinualMethod
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.stream import Experience
from graftwork.interfaces.train_step import BatchSource, TrainStep
from graftwork.tasks.losses import task_loss
from graftwork.training.config import LoopConfig
from graftwork.training.continual import learn_stream
from graftwork.training.loop import Loop

CONFIG = LoopConfig(max_steps=4, learning_rate=0.05, optimizer="adam", weight_decay=0.0)


def make_stream() -> ClassStream:
    """Six blobs of three classes for each of two experiences."""
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 30)
    centres = 3.0 * random.normal(size=(4, 3))
    suite = Suite.of_arrays(
        name="blobs",
        input_specs=table_input(3),
        tasks=[TaskSpec(name="blob", kind="multiclass", size=4)],
        inputs={
            "numeric": (centres[labels] + random.normal(size=(120, 3))).astype(np.float32),
            "categorical": np.zeros((120, 0), np.int64),
        },
        targets={"blob": labels},
        splits={"train": np.arange(80), "val": np.arange(80, 100), "test": np.arange(100, 120)},
    )
    return ClassStream(suite, [(0, 1), (2, 3)])


class Linear(SharedModel):
    """One layer."""

    task_names = ("blob",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dropout = nn.Linear(3, 4), nn.Dropout(0.2)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        return self.dropout(inputs["numeric"])

    def decode(self, representation: Any, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {"blob": self.layer(representation)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        return self.layer.parameters()


class Step(TrainStep[Batch]):
    """Cross-entropy, and a penalty."""

    loss_names = ("blob",)

    def __init__(self, model: SharedModel, task: TaskSpec, penalty: Any = None) -> None:
        self.model, self.task, self.penalty = model, task, penalty

    def backward(self, batch: Batch, step: int) -> Tensor:
        outputs = self.model(batch.inputs)  # type: ignore[operator]
        loss = task_loss(self.task, outputs["blob"], batch.targets["blob"])
        (loss if self.penalty is None else loss + self.penalty(batch, outputs)).backward()
        return loss.detach()[None]


class Plain(ContinualMethod):
    """Trains on."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        self.task, self.model = tasks[0], Linear()
        self.seen: list[str] = []

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        self.seen.append(f"begin {experience.number}")
        return Step(self.model, self.task)

    def end(self, experience: Experience) -> None:
        assert not self.model.training
        self.seen.append(f"end {experience.number}")


class Rehearsal(Plain):
    """Puts four rows of older experiences beside those of each batch."""

    def __init__(self, tasks: Sequence[TaskSpec]) -> None:
        super().__init__(tasks)
        self.memory: Batch | None = None
        self.labels_met: list[set[int]] = []

    def source(self, experience: Experience, own: BatchSource[Batch]) -> BatchSource[Batch]:
        memory, met = self.memory, set[int]()
        self.labels_met.append(met)

        class Mixed:
            def batch(self, step: int) -> Batch:
                fresh = own.batch(step)
                if memory is not None:
                    parts = (fresh, memory.take(torch.randperm(len(memory))[:4]))
                    fresh = Batch(
                        {name: torch.cat([part.inputs[name] for part in parts]) for name in fresh.inputs},
                        {name: torch.cat([part.targets[name] for part in parts]) for name in fresh.targets},
                        {name: torch.cat([part.mask[name] for part in parts]) for name in fresh.mask},
                        torch.cat([part.rows for part in parts]),
                        torch.cat([part.domain for part in parts]),
                    )
                met.update(fresh.targets["blob"].tolist())
                return fresh

        return Mixed()

    def end(self, experience: Experience) -> None:
        self.memory = RowSource(experience.suite).batch(experience.suite.splits["train"][:12])


class Elastic(Plain):
    """Holds weights to their older values by their importance (EWC)."""

    def __init__(self, tasks: Sequence[TaskSpec], strength: float) -> None:
        super().__init__(tasks)
        self.strength = strength
        self.held: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        def penalty(batch: Batch, outputs: Any) -> Any:
            return self.strength * sum((weight * (parameter - old).square()).sum() for parameter, old, weight in self.held)

        return Step(self.model, self.task, penalty if self.held else None)

    def end(self, experience: Experience) -> None:
        batch = RowSource(experience.suite).batch(experience.suite.splits["train"])
        loss = task_loss(self.task, self.model(batch.inputs)["blob"], batch.targets["blob"])
        parameters = list(self.model.parameters())
        gradients = torch.autograd.grad(loss, parameters)
        self.held = [
            (parameter, parameter.detach().clone(), gradient.square() + 1.0)
            for parameter, gradient in zip(parameters, gradients, strict=True)
        ]


class Remembering(Plain):
    """Stays near to what the model answered before (LwF)."""

    def begin(self, experience: Experience) -> TrainStep[Batch]:
        if not experience.number:
            return super().begin(experience)
        teacher = copy.deepcopy(self.model).eval().requires_grad_(False)

        def penalty(batch: Batch, outputs: Any) -> Tensor:
            return 100.0 * (outputs["blob"] - teacher(batch.inputs)["blob"]).square().mean()

        return Step(self.model, self.task, penalty)


class Count(Callback):
    """Counts steps and rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def on_step(self, loop: LoopView, batch: Any, losses: Tensor) -> None:
        self.rows.append(len(batch))


def learn(method: Plain, **changed: Any) -> Plain:
    arguments: dict[str, Any] = {"batch_size": 8, "config": CONFIG, "seeds": Seeds(0)}
    learn_stream(method, make_stream(), **{**arguments, **changed})
    return method


def weights(method: Plain) -> Tensor:
    return method.model.layer.weight.detach()


def test_experiences_come_in_order_and_are_measured_after_they_ended() -> None:
    method = Plain(make_stream().tasks)
    learn(method, after=lambda experience: method.seen.append(f"after {experience.number}"))
    assert method.seen == ["begin 0", "end 0", "after 0", "begin 1", "end 1", "after 1"]


def test_each_experience_is_one_loop_with_an_optimiser_and_a_schedule_of_its_own() -> None:
    stream, by_hand = make_stream(), Plain(make_stream().tasks)
    for experience in stream:
        own = Seeds(0).child(f"experience/{experience.number}")
        batches = BatchStream(experience.suite, experience.suite.splits["train"], 8, own.integer("batches"))
        loop = Loop(by_hand.begin(experience), batches, config=CONFIG, seeds=own)
        assert not loop.optimizer.state
        loop.train(4)
    assert torch.equal(weights(learn(Plain(stream.tasks))), weights(by_hand))


def test_equal_seeds_give_equal_bits_whatever_is_drawn_in_between() -> None:
    first = weights(learn(Plain(make_stream().tasks)))
    torch.manual_seed(123)
    again = weights(learn(Plain(make_stream().tasks), after=lambda experience: torch.randn(7)))
    other = weights(learn(Plain(make_stream().tasks), seeds=Seeds(1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_callbacks_see_every_step_and_row() -> None:
    count = Count()
    learn(Plain(make_stream().tasks), callbacks=[count])
    assert count.rows == [8] * 8


def test_rehearsal_sees_older_labels_again_and_nobody_else_does() -> None:
    method = learn(Rehearsal(make_stream().tasks), config=LoopConfig(max_steps=10))
    assert isinstance(method, Rehearsal)
    assert method.labels_met == [{0, 1}, {0, 1, 2, 3}]


def test_importance_and_distillation_hold_the_model_where_it_was() -> None:
    stream, moved = make_stream(), {}
    inputs = RowSource(stream.experience(1).suite).batch(np.arange(100)).inputs
    for name, method in (
        ("plain", Plain(stream.tasks)),
        ("importance", Elastic(stream.tasks, 100.0)),
        ("distillation", Remembering(stream.tasks)),
    ):
        answers: list[Tensor] = []

        def keep(experience: Experience, model: SharedModel = method.model, kept: list[Tensor] = answers) -> None:
            kept.append(model(inputs)["blob"].detach())

        learn(method, config=LoopConfig(max_steps=40, learning_rate=0.05), after=keep)
        moved[name] = float((answers[1] - answers[0]).square().mean())
    assert max(moved["importance"], moved["distillation"]) < 0.2 * moved["plain"], moved


def test_averaged_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="ema_decay"):
        learn(Plain(make_stream().tasks), config=LoopConfig(ema_decay=0.9))
