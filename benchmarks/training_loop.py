"""Our training loop beside a bare PyTorch loop: same model, batches, losses, clipping and optimiser, in turns with one thread.

The bare loop is what one writes by hand: targets prepared beforehand, rows by one indexing call, losses without masks (no label
is missing), a fixed learning rate. Ours does the same through ``Trainer`` with plain-sum balancing: masked losses, schedule,
divergence watch and per-epoch losses are in its time. That both end with the same weights is checked before timing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks._rows import Row, as_rows
from benchmarks._timing import take_turns
from graftwork.core.input_spec import InputSpec
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["rows"]

TARGET = 1.05
BATCH = {"table": 256, "image": 64}
STEPS = {"table": 100, "image": 12}
HORIZON = 1_000_000


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return one row for a table and one for small pictures."""
    torch.set_num_threads(1)
    suites = [table_suite(2_000 if quick else 20_000), image_suite(256 if quick else 4_000)]
    return as_rows([_compare(suite, quick) for suite in suites])


def _compare(suite: Suite, quick: bool) -> Row:
    steps = 4 if quick else STEPS[suite.kinds[0]]
    difference = largest_difference(suite, 3)
    trainer, bare = make_trainer(suite), BareLoop(suite)
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: trainer.train(trainer.step + steps),
        "bare": lambda: bare.train(steps),
    }
    timings = take_turns(contenders, rounds=3 if quick else 25, warmup=1 if quick else 3, seconds=5.0 if quick else 60.0)
    to_ms = 1e3 / steps
    return Row(
        benchmark="training_loop",
        what=f"{suite.kinds[0]}, batch {BATCH[suite.kinds[0]]}, {len(suite.tasks)} tasks",
        ours=timings["ours"].median * to_ms,
        peer=timings["bare"].median * to_ms,
        beside="bare loop",
        ratio=timings["ours"].ratio(timings["bare"]),
        unit="ms",
        target=TARGET,
        details={
            "steps_a_round": steps,
            "rounds": len(timings["ours"].rounds),
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "ratio_of_minima": timings["ours"].minimum / timings["bare"].minimum,
            "largest_weight_difference": difference,
        },
    )


def table_suite(num_rows: int) -> Suite:
    """Return a table of 24 numeric and 6 categorical columns with four tasks of three kinds; random numbers."""
    random = np.random.default_rng(0)
    cardinalities = [5, 9, 13, 21, 41, 101]
    inputs = {
        "numeric": random.normal(size=(num_rows, 24)).astype(np.float32),
        "categorical": np.stack([random.integers(1, size, num_rows) for size in cardinalities], axis=1),
    }
    sizes = {"num_numeric": 24, "cardinalities": cardinalities}
    kinds = (("price", "regression", 1), ("weight", "regression", 1), ("returned", "binary", 1), ("shelf", "multiclass", 6))
    return _suite("table", inputs, kinds, sizes, random)


def image_suite(num_rows: int) -> Suite:
    """Return pictures of 72 pixels with four tasks of two kinds, like the emoji suite; random pixels."""
    random = np.random.default_rng(0)
    inputs = {"image": random.integers(0, 256, size=(num_rows, 72, 72, 3), dtype=np.uint8)}
    kinds = (("group", "multiclass", 10), ("kind", "multiclass", 60), ("colour", "regression", 3), ("ink", "regression", 1))
    return _suite("image", inputs, kinds, {"image_size": 72}, random)


def _suite(modality: Any, inputs: dict[str, Any], kinds: Any, sizes: dict[str, Any], random: np.random.Generator) -> Suite:
    count = len(next(iter(inputs.values())))
    targets = {
        name: random.normal(3.0, 2.0, size=(count, size)).astype(np.float32)
        if kind == "regression"
        else random.integers(0, max(size, 2), count)
        for name, kind, size in kinds
    }
    train = np.arange(int(count * 0.8))
    return Suite.of_arrays(
        name=f"benchmark-{modality}",
        input_specs={modality: InputSpec(kind=modality, sizes=sizes)},
        tasks=[TaskSpec(name=name, kind=kind, size=size) for name, kind, size in kinds],
        inputs=inputs,
        targets=targets,
        splits={"train": train, "val": train[:0], "test": np.arange(len(train), count)},
    )


def make_model(suite: Suite) -> SharedTrunk:
    """Return the model of both loops, with equal first weights each time."""
    torch.manual_seed(0)
    return SharedTrunk(suite.tasks, lambda: build_backbone("scratch", suite.only_input), inputs=suite.input_specs)


def make_stream(suite: Suite) -> BatchStream:
    """Return the stream that both loops take rows from."""
    return BatchStream(suite, suite.splits["train"], BATCH[suite.kinds[0]], seed=0)


def make_trainer(suite: Suite) -> Trainer:
    """Return our loop."""
    config = TrainConfig(max_steps=HORIZON, batch_size=BATCH[suite.kinds[0]], schedule="constant", warmup_steps=0)
    return Trainer(make_model(suite), suite.tasks, make_stream(suite), balancer=EqualWeights(), config=config, seeds=Seeds(0))


class BareLoop:
    """The loop that one writes by hand."""

    def __init__(self, suite: Suite) -> None:
        self.model, self.stream, self.step = make_model(suite), make_stream(suite), 0
        self.inputs = {name: torch.from_numpy(np.asarray(array)) for name, array in suite.inputs.items()}
        self.targets: list[Tensor] = []
        self.losses: list[Callable[[Tensor, Tensor], Tensor]] = []
        for task in suite.tasks:
            target = torch.from_numpy(np.asarray(suite.targets[task.name]))
            if task.kind == "regression":
                target = (target - torch.tensor(task.center)) / torch.tensor(task.scale)
                self.losses.append(F.mse_loss)
            elif task.kind == "binary":
                target = target.float().unsqueeze(1)
                self.losses.append(F.binary_cross_entropy_with_logits)
            else:
                self.losses.append(F.cross_entropy)
            self.targets.append(target.float() if task.kind == "regression" else target)
        matrices = [parameter for parameter in self.model.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.model.parameters() if parameter.ndim <= 1]
        config = TrainConfig()
        groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
        self.clip = config.grad_clip
        self.parameters = list(self.model.parameters())

    def train(self, steps: int) -> None:
        """Make so many steps."""
        self.model.train()
        for _ in range(steps):
            index = torch.from_numpy(self.stream.rows_of(self.step))
            outputs = self.model({name: values[index] for name, values in self.inputs.items()})
            total = torch.zeros(())
            for output, loss, target in zip(outputs.values(), self.losses, self.targets, strict=True):
                total = total + loss(output, target[index])
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
            self.optimizer.step()
            self.step += 1


def largest_difference(suite: Suite, steps: int) -> float:
    """Return the largest difference of any weight after some steps of both loops, with equal dropout."""
    trainer, bare = make_trainer(suite), BareLoop(suite)
    trainer.train(steps)
    outside = torch.get_rng_state()
    torch.set_rng_state(Seeds(0).torch("dropout").get_state())
    bare.train(steps)
    torch.set_rng_state(outside)
    pairs = zip(trainer.model.parameters(), bare.model.parameters(), strict=True)
    return max(float((mine - theirs).detach().abs().max()) for mine, theirs in pairs)
