"""A small model on a table with holes, and the balancers that take a batch in parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.generated import related_tasks
from graftwork.interfaces.balancer import Balancer
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.methods.tuning.lora import LoRA
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.training.parallel import DataParallel
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["BALANCERS", "DROPOUT", "PARALLEL", "build", "parts_of", "suite_with_holes", "weights_after"]

BALANCERS: dict[str, Callable[[], Balancer]] = {
    "sum": EqualWeights,
    "uncertainty": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    "upgrad": lambda: jacobian_balancer("UPGrad"),
    "mgda": lambda: jacobian_balancer("MGDA"),
    "trimmed-mean": lambda: jacobian_balancer("TrimmedMean", trim_number=1),
}

PARALLEL = {**BALANCERS, "representation": lambda: jacobian_balancer("UPGrad", "representation")}
"""Those that work over several processes."""


DROPOUT = ("sum", "upgrad", "representation")
"""Those that are trained with dropout as well: one backward pass, several, and those through a representation."""


def suite_with_holes(share: float = 0.4) -> Suite:
    suite = related_tasks(seed=0)
    random = np.random.default_rng(0)
    for index, (_name, target) in enumerate(suite.targets.items()):
        hole = random.random(len(target)) < share * (index % 2)
        target[hole] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
    return suite


def build(
    suite: Suite,
    balancer: Balancer,
    *,
    tuner: LoRA | None = None,
    processes: DataParallel | None = None,
    seed: int = 3,
    dropout: float = 0.0,
    **settings: object,
) -> Trainer:
    Seeds(seed).set_global("init")

    def make_backbone() -> TableBackbone:
        trunk = TableBackbone(int(suite.only_input.sizes["num_numeric"]), tuple(suite.only_input.sizes.get("cardinalities", ())))
        if tuner is not None:
            tuner.attach(trunk)
        return trunk

    model = SharedTrunk(suite.tasks, make_backbone, inputs=suite.input_specs)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout  # parts draw other masks than a whole batch
    values = {"max_steps": 8, "batch_size": 24, "learning_rate": 1e-2, "optimizer": "sgd", "momentum": 0.0, "grad_clip": 0.0}
    config = TrainConfig.from_settings(values, settings)
    stream = BatchStream(suite, suite.splits["train"], config.batch_size, 1)
    return Trainer(model, suite.tasks, stream, balancer=balancer, config=config, seeds=Seeds(3), processes=processes)


def weights_after(trainer: Trainer, steps: int = 4) -> dict[str, Tensor]:
    trainer.train(steps)
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def parts_of(balancer: Balancer) -> tuple[int, ...]:
    """Return the numbers of parts to try."""
    return (1, 2) if balancer.accumulates else (1,)
