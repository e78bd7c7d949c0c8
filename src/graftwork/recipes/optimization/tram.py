"""Reproduction of TRAM.

The paper reports, for a ViT-B pretrained on ImageNet, CIFAR-100 accuracies of 88.78 (noised inputs), 88.39 (Fisher SAM) and
87.97 (SGD), Stanford Cars of 93.49 (previous step) and 92.85 (SGD), and better perplexity and cross-lingual transfer on domains
unseen in fine-tuning.

Our setting: scikit-learn's digits on canvases of 12 x 12 pixels in four drawing styles (``data.suites.digit_family``). A small
residual MLP learns, once per seed and shared by all arms, to give the plain picture at 4 x 4 pixels from a drawing in any style
(3,000 steps of 32); its trunk then gets a head for the digit, fitted alone for 300 steps on the fine-tuning data, so that
``theta_0`` is a model that can be trusted. From there every arm fine-tunes all weights with Adam on style ``plain`` (1,079
pictures, 400 steps of 32) and is tested on ``plain`` and, without seeing a digit of them, on ``thick``, ``occluded`` and
``edges``. Every arm tries four settings and keeps the one with the best validation accuracy in its own domain,
ties decided by the validation loss: Adam four learning rates, SAM and ASAM four radii, the penalty four factors, TRAM its three
references (noise of two sizes). About 3 minutes on 2 cores.

Calibration with seeds 100 and 101. A first world of generated scenes was given up: Adam reached 32 % outside of its domain
(chance is 25), and no more with scenes of one body. With the digits and 200 steps on seed 100 all arms were under-trained (83 to
85 % inside); with 400, accuracy outside: Adam 31.0 and 34.7, ASAM 33.2 and 36.2, SAM 37.1 (seed 101 alone), penalty 35.8
(likewise), TRAM 34.7 and 38.5. SAM and ASAM had some of their best results outside at radii above the grids planned first (0.02
to 0.2 and 0.1 to 1), so both grids were moved up.

Tried since, without counting: MiniLM in place of the small MLP, tuned to sort nouns into six kinds (450 nouns, the last layer and a
head that was fitted first, 150 steps of 16) and tested on definitions of nouns, three settings an arm. Outside, with the
setting that is best on validation rows over both seeds (100 and 101; Adam and TRAM are then 1e-3 and the previous step): the start
80.4 and 79.1, Adam 80.2 and 82.2, SAM with 0.05 82.4 and 80.2, ASAM with 0.5 81.6 and 79.8, the penalty with 3 82.0 and 81.8, TRAM
81.3 and 82.0; a head fitted to definitions 88.4 and 89.8. Nothing is lost by tuning there, so a trust region has nothing to keep:
it takes a world in which plain tuning falls below the start outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.core.records import TaskSpec
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.digit_family import DRAWINGS, digit_family
from graftwork.interfaces.balancer import Balancer
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.sam import ASAM, SAM
from graftwork.methods.optimization.tram import TRAM, noised_inputs
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.tasks.divergence import output_divergence
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

STYLES = ("plain", "thick", "occluded", "edges")
TASK = "digit"
RATE = 1e-3
GRIDS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "adam": [{"rate": rate} for rate in (3e-4, 1e-3, 2e-3, 4e-3)],
    "sam": [{"rho": rho} for rho in (0.05, 0.1, 0.2, 0.4)],
    "asam": [{"rho": rho} for rho in (0.5, 1.0, 2.0, 4.0)],
    "penalty": [{"factor": factor} for factor in (0.1, 0.3, 1.0, 3.0)],
    "tram": [
        {"reference": "theta_prev"},
        {"reference": "theta_0"},
        {"reference": "x", "sigma": 0.05},
        {"reference": "x", "sigma": 0.1},
    ],
    "released": [
        {"reference": "theta_prev", "released": True},
        {"reference": "theta_0", "released": True},
        {"reference": "x", "sigma": 0.05, "released": True},
        {"reference": "x", "sigma": 0.1, "released": True},
    ],
}
"""Settings that each arm chooses from on its own validation data."""
LABELS = Access(source_labels=True)


class NoisePenalty(Objective):
    """A trust region by penalty: the symmetric divergence between outputs with and without noise on the inputs.

    As R3F does: Aghajanyan et al., "Better Fine-Tuning by Reducing Representational Collapse", https://arxiv.org/abs/2008.03156.

    Args:
        factor: Weight of the penalty.
        tasks: The tasks of the model.
    """

    def __init__(self, factor: float, tasks: Sequence[Any]) -> None:
        self.factor, self.tasks = factor, tuple(tasks)

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted penalty."""
        noised = inputs.model(noised_inputs(inputs.batch.inputs, 0.05))
        total = inputs.losses.new_zeros(())
        for task in self.tasks:
            clean, other = inputs.outputs[task.name], noised[task.name]
            # Both directions: the divergence is not symmetric.
            total = total + output_divergence(task, clean, other) + output_divergence(task, other, clean)
        return self.factor * total


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Fine-tune once per setting of the arm's grid; measure accuracies in percent of the one that is best on validation rows."""
    world = _fine_tuning_world(seed, context)
    # Every style has a test split of its own, and all are tests.
    data = context.guard(world, roles={"test": "test", **{f"test_{style}": "test" for style in STYLES[1:]}})
    start = load_file(context.once("start", lambda folder: _prepare_start(folder, seed, context, data)) / "start.safetensors")
    grid = GRIDS[str(arm.settings["kind"])]
    trials: list[tuple[tuple[float, float], dict[str, Any]]] = []
    for index, setting in enumerate(grid):
        trainer = _fine_tune(arm, setting, world, data, context, start, (index / len(grid), 1.0 / len(grid)))
        context.count("trials")
        context.count("tuning_runs")
        trials.append((_validation(trainer, data), _measure(trainer, data, start)))
    # Accuracy first, the loss among equals: pairs compare in this order.
    best = max(range(len(grid)), key=lambda index: trials[index][0])
    outside_of = {f"trial_{index}": measured["outside"] for index, (_, measured) in enumerate(trials)}
    return {**trials[best][1], "chosen": float(best), "validation": trials[best][0][0], "outside_of": outside_of}


def _drawn(pictures: NDArray[np.float32], style: str) -> NDArray[np.float32]:
    """Return flat pictures ``[N, 144]`` in a drawing style, on the scale of the family."""
    # The family keeps pictures standardised; drawings work on intensities.
    canvas = (0.4 * pictures + 0.3).reshape(-1, 12, 12)
    drawn = canvas if style == "plain" else DRAWINGS[style](canvas)
    return np.ascontiguousarray((drawn.reshape(len(drawn), -1) - 0.3) / 0.4, dtype=np.float32)


def _fine_tuning_world(seed: int, context: ArmContext) -> Suite:
    """Return digits of style ``plain`` for training and validation, and one test split per style, all of the same originals."""
    plain = digit_family("plain", seed=seed)
    # One placement in four: enough rows to fine-tune on, and few enough to fit them by heart.
    first = np.arange(len(plain)) < len(plain) // 4
    # A limit of None keeps all rows.
    rows = {name: split[first[split]][: context.choose(full=None, smoke=16)] for name, split in plain.splits.items()}
    pictures, labels = plain.inputs["numeric"], plain.targets[TASK]
    parts = [(plain_rows, "plain") for plain_rows in rows.values()] + [(rows["test"], style) for style in STYLES[1:]]
    names = [*rows, *(f"test_{style}" for style in STYLES[1:])]
    borders = np.cumsum([0, *(len(part) for part, _ in parts)])
    return Suite.of_arrays(
        name="digits-fine-tuning",
        input_specs=plain.input_specs,
        tasks=plain.tasks,
        inputs={
            "numeric": np.concatenate([_drawn(pictures[part], style) for part, style in parts]),
            "categorical": np.zeros((int(borders[-1]), 0), np.int64),
        },
        targets={TASK: np.concatenate([labels[part] for part, _ in parts])},
        # One run of rows per split, since rows of several styles are put one after the other.
        splits={name: np.arange(low, high) for name, low, high in zip(names, borders[:-1], borders[1:], strict=True)},
        credits=plain.credits,
    )


def _pretraining_world(seed: int, context: ArmContext) -> Suite:
    """Return training originals in all styles; the target is the plain picture at 4 x 4 pixels, whatever the style."""
    plain = digit_family("plain", seed=seed)
    rows = plain.splits["train"][: context.choose(full=None, smoke=32)]
    pictures = plain.inputs["numeric"][rows]
    # [N, 4, 3, 4, 3]: means over blocks of 3 x 3 pixels
    coarse = pictures.reshape(-1, 4, 3, 4, 3).mean(axis=(2, 4)).reshape(len(rows), 16)
    scaled = (coarse - coarse.mean(axis=0)) / coarse.std(axis=0)
    count = len(rows) * len(STYLES)
    return Suite.of_arrays(
        name="digits-pretraining",
        input_specs=plain.input_specs,
        tasks=[TaskSpec(name="coarse", kind="regression", size=16)],
        inputs={
            "numeric": np.concatenate([_drawn(pictures, style) for style in STYLES]),
            "categorical": np.zeros((count, 0), np.int64),
        },
        targets={"coarse": np.tile(scaled, (len(STYLES), 1)).astype(np.float32)},
        splits={"train": np.arange(count), "val": np.arange(0), "test": np.arange(0)},
        credits=plain.credits,
    )


def _prepare_start(folder: Path, seed: int, context: ArmContext, data: GuardedSuite) -> None:
    """Pretrain a trunk on coarse pictures from all styles, fit a new head alone, and keep both."""
    world = _pretraining_world(seed, context)
    pretrained = _model(world)
    _train(pretrained, context.guard(world).visible, context, context.choose(full=3000, smoke=4), RATE)
    model = _model(data.visible)
    # The trunk alone: the head of the pretraining answers another question.
    model.backbone.load_state_dict(pretrained.backbone.state_dict())
    model.backbone.requires_grad_(False)
    _train(model, data.visible, context, context.choose(full=300, smoke=4), RATE)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "start.safetensors")


def _model(suite: Suite) -> SharedTrunk:
    return SharedTrunk(suite.tasks, lambda: TableBackbone(144, width=128, dropout=0.0), inputs=suite.input_specs, head_hidden=0)


def _train(
    model: SharedTrunk,
    suite: Suite,
    context: ArmContext,
    steps: int,
    rate: float,
    *,
    balancer: Balancer | None = None,
    objectives: Sequence[Objective] = (),
    progress: tuple[float, float] = (0.0, 0.0),
) -> Trainer:
    batch_size = context.choose(full=32, smoke=8)
    trainer = Trainer(
        model,
        suite.tasks,
        BatchStream(suite, suite.splits["train"], batch_size, context.seeds.integer("batches")),
        balancer=EqualWeights() if balancer is None else balancer,
        objectives=objectives,
        config=TrainConfig(
            max_steps=steps, batch_size=batch_size, optimizer="adam", learning_rate=rate, weight_decay=0.0, grad_clip=0.0
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps, on_progress=lambda step: context.progress(progress[0] + progress[1] * step / steps))
    return trainer


def _fine_tune(
    arm: Arm,
    setting: Mapping[str, Any],
    world: Suite,
    data: GuardedSuite,
    context: ArmContext,
    start: Mapping[str, Tensor],
    progress: tuple[float, float],
) -> Trainer:
    model = _model(world)
    model.load_state_dict(dict(start))
    # Adam and the penalty have no balancer of their own.
    kinds = {"sam": SAM, "asam": ASAM, "tram": TRAM, "released": TRAM}
    kind = str(arm.settings["kind"])
    options = dict(setting)
    rate, factor = options.pop("rate", RATE), options.pop("factor", None)
    return _train(
        model,
        data.visible,
        context,
        context.choose(full=400, smoke=4),
        rate,
        balancer=kinds[kind](**options) if kind in kinds else None,
        objectives=[] if factor is None else [NoisePenalty(factor, world.tasks)],
        progress=progress,
    )


def _validation(trainer: Trainer, data: GuardedSuite) -> tuple[float, float]:
    """Return accuracy in percent and the negative loss on validation rows."""
    rows = data.rows("val")
    accuracy = 100.0 * data.score("val", trainer.predict(data.visible, rows))[TASK]["accuracy"]
    batch, model = trainer.stream.source.batch(rows), trainer.eval_model()
    with torch.no_grad():
        return accuracy, -float(trainer.losses(model(batch.inputs), batch).sum())


def _measure(trainer: Trainer, data: GuardedSuite, start: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return test accuracies inside and outside of the domain, and the divergence from the start on validation rows."""
    accuracy = {}
    for style in STYLES:
        split = "test" if style == "plain" else f"test_{style}"
        asked = data.questions(split)
        accuracy[style] = 100.0 * data.score(split, trainer.predict(asked, asked.splits[split]))[TASK]["accuracy"]
    rows = data.rows("val")
    batch, model, before = trainer.stream.source.batch(rows), trainer.eval_model(), _model(data.visible)
    before.load_state_dict(dict(start))
    with torch.no_grad():
        trusted, found = before.eval()(batch.inputs), model(batch.inputs)
        moved = float(output_divergence(trainer.tasks[0], trusted[TASK], found[TASK]))
    radius = trainer.balancer.mean_radius if isinstance(trainer.balancer, TRAM) else 0.0
    outside = sum(accuracy[style] for style in STYLES[1:]) / (len(STYLES) - 1)
    return {"inside": accuracy["plain"], "outside": outside, "accuracy_of": accuracy, "moved": moved, "mean_radius": radius}


def _arm(name: str, title: str) -> Arm:
    return Arm(name, title, access=LABELS, settings={"kind": name})


ARMS = (
    _arm("adam", "Adam"),
    _arm("sam", "SAM"),
    _arm("asam", "ASAM"),
    _arm("penalty", "Adam with a penalty on noised inputs (R3F)"),
    _arm("tram", "TRAM, reference chosen on validation data"),
    _arm("released", "TRAM as in the released code"),
)

RECIPE = Recipe(
    slug="tram",
    arms=ARMS,
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality("outside: TRAM beats Adam", "tram.outside", "adam.outside", margin=1.0, unit="points"),
        Inequality("outside: TRAM beats tuned ASAM", "tram.outside", "asam.outside", margin=0.3, min_sign_seeds=4, unit="points"),
        Inequality("outside: ASAM beats Adam in the mean", "asam.outside", "adam.outside", demand="at least", unit="points"),
        Inequality("inside: not below Adam", "tram.inside", "adam.inside", margin=0.5, demand="not worse", unit="points"),
        # Lower is better, so the claimed side stands on the right.
        Inequality("outputs stay nearer to the start than Adam's", "adam.moved", "tram.moved", unit="nats"),
        Inequality("outside: TRAM beats tuned SAM", "tram.outside", "sam.outside", primary=False, unit="points"),
        Inequality("outside: TRAM beats the penalty", "tram.outside", "penalty.outside", primary=False, unit="points"),
        Inequality("outside: beats the released form", "tram.outside", "released.outside", primary=False, unit="points"),
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels", "trials", "tuning_runs")),),
    minutes=3,
    notes=(
        "Drawn digits and a small residual MLP stand for photographs and ViT-B.",
        "Pretraining sees training digits in all drawing styles, without their labels, as ImageNet has seen "
        "more than one kind of picture.",
        "Test rows of all styles are of the same originals, none of which was seen in training.",
        "Adam's grid holds learning rates; all others use the one rate that was fixed in the calibration.",
        "TRAM-Fisher is not part of it.",
    ),
)
