"""Per-task gradients, aggregator, transforms, optimiser: in the loop, in all combinations that make sense."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import assert_equal_weights, small_learner, small_plan, small_suite, small_trainer, weights_of
from torch import Tensor, nn

from graftwork.core.records import Component, Plan
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint
from graftwork.training.trainer import TrainConfig, Trainer

SUITE = small_suite()
ROOM = "graftwork.methods.optimization"
NOISE = Component(f"{ROOM}.grad_noise:GradientNoise", {"eta": 0.1})
BALANCERS = {
    "sum": Component(f"{ROOM}.equal_weights:EqualWeights"),
    "uncertainty": Component(f"{ROOM}.uncertainty:UncertaintyWeighting"),
    "pcgrad": Component(f"{ROOM}.torchjd_bridge:jacobian_balancer", {"aggregator": "PCGrad"}),
    "flat-cagrad": Component(f"{ROOM}.flat_mtl:FlatMTL", {"aggregator": "CAGrad"}),
    "flat-nash": Component(f"{ROOM}.flat_mtl:FlatMTL", {"aggregator": "NashMTL"}),
    "asam-uncertainty": Component(f"{ROOM}.sam:ASAM", {"balancer": f"{ROOM}.uncertainty:UncertaintyWeighting"}),
    "tram-prev": Component(f"{ROOM}.tram:TRAM", {"reference": "theta_prev"}),
    "tram-0": Component(f"{ROOM}.tram:TRAM", {"reference": "theta_0"}),
    "tram-x": Component(f"{ROOM}.tram:TRAM", {"reference": "x"}),
}


class Halve(GradientTransform):
    """Halves all gradients and notes their norms before and the steps."""

    def __init__(self, after_clipping: bool = True) -> None:
        self.after_clipping = after_clipping
        self.norms: list[float] = []
        self.steps: list[int] = []

    def apply(self, context: GradientContext) -> None:
        gradients = [parameter.grad for parameter in context.learned if parameter.grad is not None]
        self.norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))
        self.steps.append(context.step)
        for gradient in gradients:
            gradient.mul_(0.5)


def build(name: str, sharing: str = "shared", **options: Any) -> Trainer:
    return small_trainer(
        SUITE, sharing, balancer=BALANCERS[name].build(), transforms=[NOISE.build()], learning_rate=1e-3, **options
    )


@pytest.mark.parametrize("sharing", ["shared", "mmoe", "separate"])
@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_a_resumed_run_ends_with_the_same_bits_under_noise(name: str, sharing: str, tmp_path: Path) -> None:
    whole, first = build(name, sharing), build(name, sharing)
    whole.train(14)
    first.train(6)
    save_checkpoint(tmp_path, first.state_dict())
    torch.manual_seed(99)
    second = build(name, sharing)
    second.load_state_dict(load_checkpoint(tmp_path))
    second.train(9)
    second.train(14)
    assert_equal_weights(weights_of(whole.model), weights_of(second.model))
    other = small_trainer(SUITE, sharing, balancer=BALANCERS[name].build(), learning_rate=1e-3)
    other.train(14)
    assert any(not torch.equal(weights_of(other.model)[key], value) for key, value in weights_of(whole.model).items())


def test_a_plan_with_transforms_resumes_and_survives_json(tmp_path: Path) -> None:
    plan = small_plan(optimization=BALANCERS["tram-prev"], transforms=(NOISE, NOISE))
    assert Plan.from_json(plan.to_json()) == plan
    whole = small_learner(SUITE, tmp_path / "cache", plan)
    whole.train(20)
    half = small_learner(SUITE, tmp_path / "cache", plan)
    half.train(11)
    half.save(tmp_path / "run")
    rest = small_learner(SUITE, tmp_path / "cache", plan)
    rest.load(tmp_path / "run")
    rest.train(20)
    assert_equal_weights(weights_of(whole.model), weights_of(rest.model))
    assert len(rest.trainer.transforms) == 2
    first, second = (transform.state_dict()["random"] for transform in rest.trainer.transforms)
    assert not torch.equal(first, second), "each transform has a stream of its own"


def test_transforms_stand_before_or_after_clipping_as_they_say() -> None:
    after, before = Halve(), Halve(after_clipping=False)
    for transform in (after, before):
        small_trainer(SUITE, transforms=[transform], grad_clip=1e-3).train(3)
    assert after.norms == [pytest.approx(1e-3, rel=1e-3)] * 3
    assert min(before.norms) > 1e-2
    assert after.steps == before.steps == [0, 1, 2]


def test_transforms_change_what_the_optimiser_sees() -> None:
    options: dict[str, Any] = {
        "optimizer": "sgd",
        "momentum": 0.0,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
    }
    plain = small_trainer(SUITE, learning_rate=0.01, grad_clip=0.0, **options)
    halved = small_trainer(SUITE, learning_rate=0.02, grad_clip=0.0, transforms=[Halve()], **options)
    plain.train(4)
    halved.train(4)
    for name, value in weights_of(plain.model).items():
        torch.testing.assert_close(weights_of(halved.model)[name], value)


class LooksAgain(Balancer):
    """The plain sum; repeats the forward pass and keeps what it found."""

    def __init__(self) -> None:
        self.differences: list[float] = []
        self.found: list[BackwardContext] = []

    @property
    def needs_recompute(self) -> bool:
        return True

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        assert context.recompute is not None
        state = torch.get_rng_state()
        for _ in range(2):
            again = context.recompute()
            self.differences.append(float((again.losses - losses).abs().max().detach()))
            assert torch.equal(torch.get_rng_state(), state)
        assert context.outputs is not None
        assert set(again.outputs) == set(context.outputs)
        assert again.representation is not None
        self.found.append(context)
        losses.sum().backward()
        return None


class Asks(LooksAgain):
    """The same question, not announced."""

    @property
    def needs_recompute(self) -> bool:
        return False

    def backward(self, losses: Tensor, context: BackwardContext) -> Tensor | None:
        assert context.recompute is None
        losses.sum().backward()
        return None


def test_recompute_repeats_batch_and_dropout() -> None:
    balancer = LooksAgain()
    trainer = small_trainer(SUITE, balancer=balancer)
    trainer.train(4)
    assert balancer.differences == [0.0] * 8
    assert [task.name for task in balancer.found[0].tasks] == ["sign", "level", "amount"]
    plain = small_trainer(SUITE, balancer=Asks())
    plain.train(4)
    assert_equal_weights(weights_of(plain.model), weights_of(trainer.model))


def normalised(make: Callable[[], Balancer]) -> Trainer:
    """A trainer over a model with batch norm in its trunk."""
    source = small_trainer(SUITE)
    source.model.backbone.trunk = nn.Sequential(nn.LazyLinear(16), nn.BatchNorm1d(16), nn.Tanh())
    batch = source.stream.batch(0)
    torch.manual_seed(3)
    source.model(batch.inputs)
    return Trainer(
        source.model,
        SUITE.tasks,
        BatchStream(SUITE, SUITE.splits["train"], 16, 0),
        balancer=make(),
        config=TrainConfig(max_steps=6, batch_size=16),
        seeds=Seeds(0),
    )


def test_statistics_count_every_batch_once() -> None:
    plain, twice = normalised(Asks), normalised(LooksAgain)
    for trainer in (plain, twice):
        trainer.train(5)
    assert_equal_weights(weights_of(plain.model), weights_of(twice.model))
    assert int(twice.model.backbone.trunk[1].num_batches_tracked) == 6  # one of them made the layers
