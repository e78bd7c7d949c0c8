"""Reproduction of annealed gradient noise.

The paper reports, for 20 hidden ReLU layers of 50 units on MNIST trained by plain SGD, best test accuracies (remembered, not
read again) of 89.9 without and 96.7 with noise from weights drawn from N(0, 0.1^2), of 11.4 and 94.5 from zero weights, and of
97.4 and 97.5 from a good start.

Our setting: scikit-learn digits as they are (64 inputs in [0, 1]; 957 rows to learn, 300 to choose, 540 to test), hidden ReLU
layers of 50 units, plain SGD without momentum at a constant learning rate, batches of 64, gradients clipped to a norm of 10.
Every arm tries three settings and keeps the
one with the best validation accuracy: without noise three learning rates, with noise three pairs of learning rate and variance.
Noise comes after clipping. An arm succeeds with a seed if its test accuracy is above 90 %. Three starts: N(0, 0.1^2) ("simple",
the poor one), zero weights, and He. The claim is judged at 15 layers; 10 and 20 layers are reported. About 12 minutes on 2 cores.

One short run with another seed (100) while this was set up, 15 layers from N(0, 0.1^2), on validation rows: 9 % without noise at
learning rates of 0.03, 0.1, 0.2 and 0.3; annealed noise 60, 97, 79 and 9 % for rate and variance (0.1, 0.01), (0.1, 0.03), (0.2,
0.01) and (0.2, 0.03); constant noise of variance 0.001 97 % at 0.1, of 0.01 9 %. That constant noise needs a variance of its own
was learned there; grids and margins are as they were before or were cut to their useful part after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.interfaces.shared_model import SharedModel
from graftwork.interfaces.transform import GradientTransform
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.grad_noise import GradientNoise
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

WIDTH = 50
STEPS = 4000
PLAIN_GRID: tuple[dict[str, float], ...] = tuple({"rate": rate} for rate in (0.03, 0.1, 0.3))
NOISE_GRID: tuple[dict[str, float], ...] = tuple(
    {"rate": rate, "eta": eta} for rate, eta in ((0.1, 0.01), (0.1, 0.03), (0.2, 0.01))
)
CONSTANT_GRID: tuple[dict[str, float], ...] = tuple(
    {"rate": rate, "eta": eta} for rate, eta in ((0.1, 0.0003), (0.1, 0.001), (0.2, 0.001))
)
"""Constant noise adds up to more: a smaller variance is its fair chance (the annealed one has 2 % of its first variance on
average)."""
GRIDS = {"": PLAIN_GRID, "annealed": NOISE_GRID, "constant": CONSTANT_GRID}
LABELS = Access(source_labels=True)


class DeepReluNet(SharedModel):
    """A stack of hidden ReLU layers of one width and a linear output, without norms: hard to train when it is deep.

    Args:
        num_inputs: Width of the input ``numeric``.
        depth: Number of hidden layers.
        start: How weights begin: ``simple`` draws from N(0, 0.1^2), ``he`` from N(0, 2 / width of the input), ``zero`` sets them
            to 0; biases are 0.
    """

    task_names = ("digit",)

    def __init__(self, num_inputs: int, depth: int, start: str) -> None:
        super().__init__()
        widths = [num_inputs, *[WIDTH] * depth]
        self.hidden = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.output = nn.Linear(WIDTH, 10)
        for layer in (*self.hidden, self.output):
            nn.init.zeros_(layer.bias)
            if start == "zero":
                nn.init.zeros_(layer.weight)
            else:
                nn.init.normal_(layer.weight, std=0.1 if start == "simple" else (2.0 / layer.in_features) ** 0.5)

    def encode(self, inputs: Mapping[str, Tensor], tasks: Sequence[str] | None = None) -> Tensor:
        """Return the last hidden layer, ``[B, 50]``."""
        state = inputs["numeric"]
        for layer in self.hidden:
            state = torch.relu(layer(state))
        return state

    def decode(self, representation: Tensor | tuple[Tensor, ...], tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return the logits ``[B, 10]``."""
        return {"digit": self.output(representation)}

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """Yield the parameters of the output layer."""
        return self.output.parameters()


def plain_digits(seed: int, num_train: int) -> Suite:
    """Return scikit-learn's digits with random splits of ``num_train``, 300 and 540 rows."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = Seeds(seed).numpy("split").permutation(len(digits.target))
    return Suite.of_arrays(
        name="plain-digits",
        input_specs=table_input(64),
        tasks=[TaskSpec(name="digit", kind="multiclass", size=10)],
        inputs={"numeric": (digits.data / 16.0).astype(np.float32), "categorical": np.zeros((len(order), 0), np.int64)},
        targets={"digit": digits.target.astype(np.int64)},
        # Test rows first, so that they do not depend on how many rows are learned from.
        splits={"test": order[:540], "val": order[540:840], "train": order[840 : 840 + num_train]},
    )


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train once per setting of the arm's grid; measure test accuracy in percent of the one that is best on validation rows."""
    data = context.guard(plain_digits(seed, context.choose(full=957, smoke=64)))
    steps = context.choose(full=STEPS, smoke=4)
    grid = GRIDS[arm.settings["noise"]]
    trials: list[tuple[float, float]] = []
    for index, setting in enumerate(grid):
        # The default argument binds the number of this trial, not that of the last one.
        def report(step: int, done: int = index) -> None:
            context.progress((done + step / steps) / len(grid))

        trainer = _train(arm, setting, data, context, steps)
        trainer.train(steps, on_progress=report)
        context.count("trials")
        context.count("tuning_runs")
        asked = data.questions("test")
        test = data.score("test", trainer.predict(asked, asked.splits["test"]))["digit"]["accuracy"]
        trials.append((_validation_accuracy(data, trainer), 100.0 * test))
    best = max(range(len(grid)), key=lambda index: trials[index][0])  # the first of equals
    return {
        "accuracy": trials[best][1],
        "success": float(trials[best][1] > 90.0),
        "validation": trials[best][0],
        "chosen": {"rate": grid[best]["rate"], "eta": grid[best].get("eta", 0.0)},
        "validation_of": {f"trial_{index}": value for index, (value, _) in enumerate(trials)},
    }


def _train(arm: Arm, setting: Mapping[str, float], data: GuardedSuite, context: ArmContext, steps: int) -> Trainer:
    context.seeds.set_global("init")
    transforms: list[GradientTransform] = []
    if arm.settings["noise"]:
        # A decay exponent of 0 keeps the first variance for ever.
        transforms = [GradientNoise(setting["eta"], gamma=0.0 if arm.settings["noise"] == "constant" else 0.55)]
    return Trainer(
        DeepReluNet(64, int(arm.settings["depth"]), str(arm.settings["start"])),
        data.visible.tasks,
        BatchStream(data.visible, data.visible.splits["train"], 64, context.seeds.integer("batches")),
        balancer=EqualWeights(),
        transforms=transforms,
        config=TrainConfig(
            max_steps=steps,
            batch_size=64,
            optimizer="sgd",
            momentum=0.0,
            weight_decay=0.0,
            learning_rate=setting["rate"],
            schedule="constant",
            warmup_steps=0,
            grad_clip=10.0,
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )


def _validation_accuracy(data: GuardedSuite, trainer: Trainer) -> float:
    return 100.0 * data.score("val", trainer.predict(data.visible, data.rows("val")))["digit"]["accuracy"]


def _arm(name: str, title: str, start: str, depth: int, noise: str = "") -> Arm:
    return Arm(name, title, access=LABELS, settings={"start": start, "depth": depth, "noise": noise})


ARMS = (
    _arm("simple-plain", "15 layers, N(0, 0.1^2), no noise", "simple", 15),
    _arm("simple-noise", "15 layers, N(0, 0.1^2), annealed noise", "simple", 15, "annealed"),
    _arm("simple-constant", "15 layers, N(0, 0.1^2), constant noise", "simple", 15, "constant"),
    _arm("he-plain", "15 layers, He, no noise", "he", 15),
    _arm("he-noise", "15 layers, He, annealed noise", "he", 15, "annealed"),
    _arm("zero-plain", "10 layers, zero weights, no noise", "zero", 10),
    _arm("zero-noise", "10 layers, zero weights, annealed noise", "zero", 10, "annealed"),
    _arm("ten-plain", "10 layers, N(0, 0.1^2), no noise", "simple", 10),
    _arm("ten-noise", "10 layers, N(0, 0.1^2), annealed noise", "simple", 10, "annealed"),
    _arm("twenty-plain", "20 layers, N(0, 0.1^2), no noise", "simple", 20),
    _arm("twenty-noise", "20 layers, N(0, 0.1^2), annealed noise", "simple", 20, "annealed"),
)

RECIPE = Recipe(
    slug="grad-noise",
    arms=ARMS,
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality("poor start: noise beats none", "simple-noise.accuracy", "simple-plain.accuracy", margin=5.0, unit="points"),
        Inequality(
            "poor start: more seeds succeed",
            "simple-noise.success",
            "simple-plain.success",
            margin=0.1,
            demand="at least",
            unit="share",
        ),
        # Both directions together: with a good start noise changes little either way.
        Inequality(
            "He start: noise costs at most a point",
            "he-noise.accuracy",
            "he-plain.accuracy",
            margin=1.0,
            demand="not worse",
            unit="points",
        ),
        Inequality(
            "He start: noise gains at most a point",
            "he-plain.accuracy",
            "he-noise.accuracy",
            margin=1.0,
            demand="not worse",
            unit="points",
        ),
        Inequality(
            "annealed beats constant noise in the mean",
            "simple-noise.accuracy",
            "simple-constant.accuracy",
            demand="at least",
            unit="points",
        ),
        Inequality(
            "zero weights: noise beats none",
            "zero-noise.accuracy",
            "zero-plain.accuracy",
            margin=5.0,
            primary=False,
            unit="points",
        ),
        Inequality("10 layers: noise beats none", "ten-noise.accuracy", "ten-plain.accuracy", primary=False, unit="points"),
        Inequality("20 layers: noise beats none", "twenty-noise.accuracy", "twenty-plain.accuracy", primary=False, unit="points"),
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels", "trials", "tuning_runs")),),
    minutes=12,
    notes=(
        "Scikit-learn digits stand for MNIST; 4 000 steps a run.",
        "From zero weights the noiseless net cannot learn by construction: that arm is reported and makes no "
        "part of the verdict.",
        "The variances 0.01 and 0.03 are the useful range at these learning rates; the paper's 0.3 and 1.0 re-draw all weights.",
        "The paper does not say whether clipping comes first; here it does, so that noise is not clipped away.",
    ),
)
