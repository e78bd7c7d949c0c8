"""A batch in parts and in shares: the same gradients as the whole batch, whatever labels are missing where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.generated import related_tasks
from graftwork.interfaces.balancer import Balancer
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.sam import SAM
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.methods.tuning.lora import LoRA
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.tasks.losses import label_count, task_loss
from graftwork.training.loop import TrainConfig, Trainer
from graftwork.training.parts import split_batch

BALANCERS = {
    "sum": EqualWeights,
    "uncertainty": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    "upgrad": lambda: jacobian_balancer("UPGrad"),
    "mgda": lambda: jacobian_balancer("MGDA"),
    "graddrop-like mean": lambda: jacobian_balancer("TrimmedMean", trim_number=1),
}


def suite_with_holes(share: float = 0.4) -> Suite:
    suite = related_tasks(seed=0)
    random = np.random.default_rng(0)
    for index, (name, target) in enumerate(suite.targets.items()):
        hole = random.random(len(target)) < share * (index % 2)
        target[hole] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
    return suite


def build(suite: Suite, balancer: Balancer, *, tuner: LoRA | None = None, **settings: object) -> Trainer:
    Seeds(3).set_global("init")

    def make_backbone() -> TableBackbone:
        trunk = TableBackbone(int(suite.input_sizes["num_numeric"]), tuple(suite.input_sizes.get("cardinalities", ())))
        if tuner is not None:
            tuner.attach(trunk)
        return trunk

    model = SharedTrunk(suite.tasks, make_backbone, input_sizes=suite.input_sizes)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # parts draw other masks than a whole batch
    values = {"max_steps": 8, "batch_size": 24, "learning_rate": 1e-2, "optimizer": "sgd", "momentum": 0.0, "grad_clip": 0.0}
    config = TrainConfig.from_settings(values, settings)
    stream = BatchStream(suite, suite.splits["train"], config.batch_size, 1)
    return Trainer(model, suite.tasks, stream, balancer=balancer, config=config, seeds=Seeds(3))


def weights_after(trainer: Trainer, steps: int = 4) -> dict[str, Tensor]:
    trainer.train(steps)
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


@pytest.mark.parametrize("name", BALANCERS)
@pytest.mark.parametrize("parts", [2, 5])
def test_accumulation_equals_the_whole_batch(name: str, parts: int) -> None:
    suite = suite_with_holes()
    whole = weights_after(build(suite, BALANCERS[name]()))
    split = weights_after(build(suite, BALANCERS[name](), accumulate=parts))
    for key, value in split.items():
        torch.testing.assert_close(value, whole[key], rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")


def test_what_needs_the_whole_batch_says_so() -> None:
    suite = suite_with_holes(0.0)
    for balancer in (jacobian_balancer("UPGrad", "representation"), SAM()):
        with pytest.raises(ConfigError, match="cannot accumulate gradients over 3 parts.*accumulate=1"):
            build(suite, balancer, accumulate=3)


@pytest.mark.parametrize("name", ["sum", "uncertainty", "upgrad"])
def test_bfloat16_autocast_stays_near_float32_and_weights_stay_float32(name: str) -> None:
    suite = suite_with_holes()
    exact, half = build(suite, BALANCERS[name]()), build(suite, BALANCERS[name](), autocast="bfloat16")
    seen: list[torch.dtype] = []
    half.model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    exact.train(4)
    half.train(4)
    assert torch.bfloat16 in seen
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    moved = 0.0
    for mine, wanted in zip(half.model.parameters(), exact.model.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=0.05, atol=0.02)
        moved += float((mine - wanted).detach().abs().sum())
    assert moved > 0, "half precision was used"


@pytest.mark.parametrize("name", ["sum", "upgrad", "mgda"])
def test_balancing_on_low_rank_parameters_alone(name: str) -> None:
    suite = suite_with_holes()
    whole = build(suite, BALANCERS[name](), tuner=LoRA())
    frozen = {key: value.clone() for key, value in whole.model.named_parameters() if not value.requires_grad}
    assert frozen
    assert any("backbone" in key for key, value in whole.model.named_parameters() if value.requires_grad)
    after = weights_after(whole)
    for key, value in frozen.items():
        torch.testing.assert_close(after[key].float(), value, rtol=0, atol=0)
    split = weights_after(build(suite, BALANCERS[name](), tuner=LoRA(), accumulate=3))
    changed = 0
    for key, value in split.items():
        torch.testing.assert_close(value, after[key], rtol=1e-3, atol=2e-5)
        changed += key not in frozen
    assert changed


def test_parts_hold_all_rows_in_order_and_counts_are_the_denominators() -> None:
    suite = suite_with_holes()
    stream = BatchStream(suite, suite.splits["train"], 23, 0)
    batch = stream.batch(0)
    parts = split_batch(batch, 4)
    assert torch.equal(torch.cat([part.rows for part in parts]), batch.rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [len(part) for part in split_batch(parts[0], 9)] == [1] * len(parts[0])
    for task in suite.tasks:
        target = batch.targets[task.name]
        output = torch.randn(len(batch), task.num_outputs, generator=torch.Generator().manual_seed(0))
        bounds = np.cumsum([0, *map(len, parts)])
        pieces = [
            float(task_loss(task, output[first:last], target[first:last]) * label_count(task, target[first:last]))
            for first, last in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        whole = float(task_loss(task, output, target) * label_count(task, target))
        assert sum(pieces) == pytest.approx(whole, rel=1e-5)
