"""Reproduction of F-MTL (task-based flat regions).

The paper reports, with ResNet-18 on Multi-Fashion, mean accuracies of 86.51 (CAGrad) and 87.82 (F-CAGrad), and 86.27 and 87.73
for MGDA; on Multi-MNIST 95.01 and 95.95 for CAGrad; gains for each of six aggregators.

Our setting: ``multidigits``, two scikit-learn digits on a 24 x 24 canvas, 4 000 training pictures drawn from 1 078 digits, 2 000
test pictures from 449 others; two convolutions and 64 hidden units, a linear head per task; Adam, 1 000 steps of 64 pictures,
the same data, initial weights and batches
in all arms. Aggregators: mean, PCGrad, CAGrad, each with (flat) and without (erm) F-MTL. Beside them: twice the steps without
F-MTL (a step of F-MTL costs about twice as much), SAM on the sum of the losses, direct aggregation of SAM gradients, one model
per task, and a second world in which 10 % of one task's training labels are wrong. The worst loss in a ball of radius 0.5 is
measured on 512 training pictures. About 8 minutes on 2 cores.

Short runs with two other seeds (600 steps) while this was set up, validation and test accuracy: mean without F-MTL 98.3 and
97.5, 98.6 and 97.4, 98.7 and 97.4 at learning rates of 0.001, 0.002 and 0.004; with F-MTL 98.4 and 97.6 at a radius of 0.1, 98.0
and 96.9 at 0.2, chance at 0.4. With a radius of 0.05 the first seed gave 97.55 (without: 97.40). So 0.002 and 0.05 were kept for
all arms. The worst loss in the ball fell from 8 to 2 nats; the accuracies leave little room for a gain of half a point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from graftwork.claims.experiment import (
    Access,
    Arm,
    ArmContext,
    EqualBudget,
    Inequality,
    Measurements,
    Recipe,
    SeedMeasurements,
)
from graftwork.claims.guards import GuardedSuite
from graftwork.data.loader import BatchStream
from graftwork.data.suites.multidigits import PLACES, multidigits
from graftwork.evaluation.sharpness import worst_case_losses
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.interfaces.balancer import Balancer
from graftwork.methods.optimization.flat_mtl import FlatMTL
from graftwork.methods.optimization.sam import SAM
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

AGGREGATORS = {"mean": "Mean", "pcgrad": "PCGrad", "cagrad": "CAGrad"}
RATE = 2e-3
RHO = 0.05
BALL = 0.5
"""Radius of the ball in which sharpness is measured."""
LABELS = Access(source_labels=True)


class DigitBackbone(Backbone):
    """Two convolutions and a hidden layer: input ``image`` ``[B, 24, 24, 3]``, grey, to 64 features. Places stay apart: nothing
    is pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_shape = FeatureShape("vector", 64)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * 36, 64),
            nn.ReLU(),
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the features ``[B, 64]``."""
        # The pictures are grey: all three channels are equal. [B, 1, 24, 24]
        grey = inputs["image"][..., 0].unsqueeze(1).to(torch.float32)
        features: Tensor = self.layers(grey / 127.5 - 1.0)
        return features


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train one arm; measure test accuracy in percent, and the worst loss in a ball."""
    sizes: dict[str, Any] = context.choose(
        full={"num_train": 4000, "num_val": 500, "num_test": 2000}, smoke={"num_train": 64, "num_val": 0, "num_test": 32}
    )
    world = multidigits(label_noise=float(arm.settings["label_noise"]), seed=seed, **sizes)
    # The world is the same for all arms; one report is enough.
    if arm.name == "single":
        context.independence(world.raw["factors"])
    data = context.guard(world)
    batch_size = context.choose(full=64, smoke=8)
    steps = context.choose(full=1000, smoke=4) * int(arm.settings["length"])
    context.seeds.set_global("init")
    operator = Separate if arm.settings["kind"] == "single" else SharedTrunk
    model = operator(world.tasks, DigitBackbone, inputs=world.input_specs, head_hidden=0)
    stream = BatchStream(data.visible, data.visible.splits["train"], batch_size, context.seeds.integer("batches"))
    trainer = Trainer(
        model,
        world.tasks,
        stream,
        balancer=_build_balancer(arm.settings),
        config=TrainConfig(
            max_steps=steps, batch_size=batch_size, optimizer="adam", learning_rate=RATE, weight_decay=0.0, grad_clip=0.0
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps, on_progress=lambda step: context.progress(step / steps))
    asked = data.questions("test")
    scores = data.score("test", trainer.predict(asked, asked.splits["test"], world.task_names))
    accuracy = {place: 100.0 * scores[place]["accuracy"] for place in PLACES}
    # Training pictures: flatness is a property of the loss that was minimised.
    ball = worst_case_losses(_losses_on(trainer, stream.rows[:512]), list(model.parameters()), BALL, seed=seed)
    return {
        "accuracy": sum(accuracy.values()) / len(accuracy),
        "validation": _validation_accuracy(data, trainer),
        "accuracy_of": accuracy,
        "worst": dict(zip(PLACES, ball.worst.tolist(), strict=True)),
        "rise": dict(zip(PLACES, ball.rise.tolist(), strict=True)),
        "random": dict(zip(PLACES, ball.random.tolist(), strict=True)),
    }


def _validation_accuracy(data: GuardedSuite, trainer: Trainer) -> float:
    rows = data.rows("val")
    # Smoke runs have no validation rows.
    if not len(rows):
        return 0.0
    scores = data.score("val", trainer.predict(data.visible, rows))
    return sum(100.0 * scores[place]["accuracy"] for place in PLACES) / len(PLACES)


def _build_balancer(settings: Mapping[str, Any]) -> Balancer:
    kind, aggregator = settings["kind"], settings["aggregator"]
    if kind == "sam":
        return SAM(RHO)
    if kind == "flat":
        return FlatMTL(aggregator, settings["variant"], RHO, RHO)
    return jacobian_balancer(aggregator)


def _losses_on(trainer: Trainer, rows: Any) -> Callable[[], Tensor]:
    """Return the training losses ``[T]`` on some rows, in evaluation mode, as a function of the present weights."""
    batch, model = trainer.stream.source.batch(rows), trainer.eval_model()
    return lambda: trainer.losses(model(batch.inputs), batch)


def derive(seed: SeedMeasurements) -> Mapping[str, dict[str, Any]]:
    """Average accuracy and worst losses over the aggregators, with and without F-MTL; kept with the arms of the mean."""
    derived: dict[str, dict[str, Any]] = {}
    for kind in ("erm", "flat"):
        arms = [seed[f"{name}-{kind}"] for name in AGGREGATORS]
        keys = ("accuracy", *(f"worst.{place}" for place in PLACES))
        means = {key: sum(arm[key] for arm in arms) / len(arms) for key in keys}
        worst = {place: means[f"worst.{place}"] for place in PLACES}
        derived[f"mean-{kind}"] = {"pooled_accuracy": means["accuracy"], "pooled_worst": worst}
    return derived


def _arm(
    name: str,
    title: str,
    kind: str,
    aggregator: str,
    variant: str = "decomposed",
    length: int = 1,
    label_noise: float = 0.0,
) -> Arm:
    settings = {"kind": kind, "aggregator": aggregator, "variant": variant, "length": length, "label_noise": label_noise}
    return Arm(name, title, access=LABELS, settings=settings)


ARMS = (
    *(_arm(f"{short}-erm", f"{name} without F-MTL", "erm", name) for short, name in AGGREGATORS.items()),
    *(_arm(f"{short}-flat", f"F-{name}", "flat", name) for short, name in AGGREGATORS.items()),
    _arm("cagrad-long", "CAGrad, twice the steps", "erm", "CAGrad", length=2),
    _arm("cagrad-direct", "CAGrad of the SAM gradients", "flat", "CAGrad", variant="direct"),
    _arm("sam", "SAM on the sum of the losses", "sam", "Sum"),
    _arm("single", "one model per task", "single", "Sum"),
    _arm("noisy-erm", "CAGrad, wrong labels in one task", "erm", "CAGrad", label_noise=0.1),
    _arm("noisy-flat", "F-CAGrad, wrong labels in one task", "flat", "CAGrad", label_noise=0.1),
)

RECIPE = Recipe(
    slug="flat-mtl",
    arms=ARMS,
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        *(
            Inequality(
                f"F-{name} beats {name}", f"{short}-flat.accuracy", f"{short}-erm.accuracy", demand="at least", unit="points"
            )
            for short, name in AGGREGATORS.items()
        ),
        Inequality(
            "mean gain over the aggregators",
            "mean-flat.pooled_accuracy",
            "mean-erm.pooled_accuracy",
            margin=0.5,
            min_sign_seeds=4,
            unit="points",
        ),
        *(
            # Lower is better, so the claimed side stands on the right.
            Inequality(
                f"lower worst loss in the ball, {place.replace('_', ' ')}",
                f"mean-erm.pooled_worst.{place}",
                f"mean-flat.pooled_worst.{place}",
                unit="nats",
            )
            for place in PLACES
        ),
        Inequality(
            "decomposing is no worse than aggregating SAM gradients",
            "cagrad-flat.accuracy",
            "cagrad-direct.accuracy",
            margin=0.1,
            demand="not worse",
            primary=False,
            unit="points",
        ),
        Inequality(
            "beats twice the steps without F-MTL", "cagrad-flat.accuracy", "cagrad-long.accuracy", primary=False, unit="points"
        ),
        Inequality("beats SAM on the sum", "mean-flat.accuracy", "sam.accuracy", primary=False, unit="points"),
        Inequality("beats one model per task", "mean-flat.accuracy", "single.accuracy", primary=False, unit="points"),
        Inequality(
            "gains with wrong labels in one task", "noisy-flat.accuracy", "noisy-erm.accuracy", primary=False, unit="points"
        ),
    ),
    equal_budget=(
        # The long arm takes twice the steps by design.
        EqualBudget(("steps", "samples"), arms=tuple(arm.name for arm in ARMS if arm.settings["length"] == 1)),
        EqualBudget(("labels",)),
    ),
    minutes=8,
    notes=(
        "Composites of scikit-learn digits and a net of two convolutions stand for Multi-MNIST and ResNet-18.",
        "Equal steps give F-MTL about twice the computation; the arm cagrad-long gives CAGrad as much.",
        "Both radii are 0.05; the paper's values were not found.",
    ),
)
