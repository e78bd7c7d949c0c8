"""A small table with tasks of all kinds and gaps, and trainers over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from graftwork.core.input_spec import table_input
from graftwork.core.records import Component, Plan, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.core.stages.train import TrainStage
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.learner import LearnerContext
from graftwork.interfaces.shared_model import SharedModel
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.learner import NeuralLearner
from graftwork.training.trainer import TrainConfig, Trainer

SHARING = {
    "shared": "graftwork.methods.sharing.shared_trunk:SharedTrunk",
    "separate": "graftwork.methods.sharing.separate:Separate",
    "mmoe": "graftwork.methods.sharing.mmoe:MMoE",
    "ple": "graftwork.methods.sharing.ple:PLE",
}


def small_suite(rows: int = 160, seed: int = 0) -> Suite:
    random = np.random.default_rng(seed)
    numeric = random.normal(size=(rows, 4)).astype(np.float32)
    hidden = numeric @ random.normal(size=(4, 3))
    targets: dict[str, Any] = {
        "sign": (hidden[:, 0] > 0).astype(np.int64),
        "level": np.digitize(hidden[:, 1], [-1.0, 0.0, 1.0]).astype(np.int64),
        "amount": (10.0 * hidden[:, :2] + 5.0).astype(np.float32),
    }
    targets["sign"][::7] = -1
    targets["amount"][::5, 0] = np.nan
    order = random.permutation(rows)
    return Suite.of_arrays(
        name="small",
        input_specs=table_input(4, [3]),
        tasks=[
            TaskSpec(name="sign", kind="binary", size=1),
            TaskSpec(name="level", kind="ordinal", size=4),
            TaskSpec(name="amount", kind="regression", size=2),
        ],
        inputs={"numeric": numeric, "categorical": random.integers(0, 3, size=(rows, 1))},
        targets=targets,
        splits={"train": order[: rows // 2], "val": order[rows // 2 : 3 * rows // 4], "test": order[3 * rows // 4 :]},
    )


def small_model(suite: Suite, sharing: str = "shared", dropout: float = 0.1, seed: int = 0) -> SharedModel:
    torch.manual_seed(seed)
    return Component(SHARING[sharing]).build(
        suite.tasks,
        lambda: TableBackbone(4, [3], width=16, num_blocks=1, dropout=dropout),
        inputs=suite.input_specs,
    )


def small_trainer(suite: Suite, sharing: str = "shared", *, seed: int = 0, **options: Any) -> Trainer:
    """A trainer; ``options`` are settings of the loop, or ``balancer``, ``objectives``, ``transforms`` and ``callbacks``."""
    runtime = {name: options.pop(name) for name in ("balancer", "objectives", "transforms", "callbacks") if name in options}
    runtime.setdefault("balancer", Component("graftwork.methods.optimization.equal_weights:EqualWeights").build())
    config = TrainConfig(**{"max_steps": 40, "batch_size": 16, **options})
    seeds = Seeds(seed)
    stream = BatchStream(suite, suite.splits["train"], config.batch_size, seeds.integer("batches"))
    return Trainer(small_model(suite, sharing, seed=seed), suite.tasks, stream, config=config, seeds=seeds, **runtime)


def small_plan(sharing: str = "shared", **fields: Any) -> Plan:
    stage = {"sharing": Component(SHARING[sharing]), "training": {"batch_size": 16}}
    stage |= {key: fields.pop(key) for key in TrainStage.keys() if key in fields}  # noqa: SIM118  (not a mapping)
    return Plan(
        **{
            "name": sharing,
            "title": sharing,
            "role": "reference" if sharing == "separate" else "joint",
            "modalities": ("table",),
            "stages": (TrainStage(**stage),),
            **fields,
        }
    )


def small_learner(suite: Suite, cache: Path, plan: Plan | None = None, **fields: Any) -> NeuralLearner:
    values: dict[str, Any] = {"seed": 0, "max_steps": 40, **fields}
    return NeuralLearner(LearnerContext(suite=suite, plan=plan or small_plan(), cache=cache, **values))


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_equal_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different
