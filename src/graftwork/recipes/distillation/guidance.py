"""Reproduction of guidance by representational alignment.

The paper reports that a deep fully connected network that overfits on ImageNet at one or two percent improves several-fold under a
guide with convolutions, even an untrained one, and that a plain deep convolutional network comes near to a residual one; exact
figures were not available.

Our setting: letters of an invented alphabet, 20 pixels high, at random places of a canvas of 32 pixels; 10 letters, 2,000 pictures
to learn from, without augmentation, so that a network without a notion of place learns them by heart. Two networks are guided: eight
linear layers of 256 units, and 24 convolutions in a row without a connection that skips any. The guide is ``conv-mini``, 38
convolutions with residual connections: fine-tuned for the letters from its pretrained weights (``trained``), or with random weights
(``untrained``). Logit distillation from the trained guide, the trained guide fed with noise, and a guide that is taken away after a
third of the steps stand beside. All arms make the same 300 steps of 64 pictures; weights of the last step count, so that overfitting
shows.

The pilot (``--pilot``, seeds 100 and 101) chooses for each arm by validation accuracy the weight of the term of four, at a learning
rate of 0.001 as in the paper; networks without a term choose a learning rate of four, which favours them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.input_spec import image_input
from graftwork.core.records import Plan
from graftwork.core.seeds import Seeds
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.data.suites.glyphs import glyphs
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.tasks.raw_answers import raw_answers
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "DeepPerceptron", "PlainConv", "run_arm", "shifted_letters"]

TASK, GUIDE, SIZE, LETTER = "letter", "conv-mini@32", 32, 20
STEPS, BATCH, GUIDE_STEPS = 300, 64, 200
_HERE = "graftwork.recipes.distillation.guidance:"
_MINI_CONV = {"path": "graftwork.nn.backbones.mini_conv:MiniConv", "settings": {"size": SIZE}}


class DeepPerceptron(Backbone):
    """Linear layers on all pixels, each followed by ReLU: no notion of place.

    Args:
        size: Side of the pictures.
        width: Units of a layer.
        depth: Number of layers.
    """

    def __init__(self, size: int = SIZE, width: int = 256, depth: int = 8) -> None:
        super().__init__()
        widths = [size * size, *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(one, two) for one, two in itertools.pairwise(widths))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.feature_shape = FeatureShape("vector", width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, width]`` of grey pictures ``[B, S, S, 3]``."""
        states = inputs["image"][..., 0].flatten(1).float() / 127.5 - 1.0
        for layer in self.layers:
            states = F.relu(layer(states))
        return states


class PlainConv(Backbone):
    """Convolutions in a row with BatchNorm and ReLU, and nothing that skips any.

    Args:
        depth: Number of convolutions, divisible by 3; the first of each third has a stride of 2.
        channels: Channels of each third.
    """

    def __init__(self, depth: int = 24, channels: tuple[int, int, int] = (12, 24, 48)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for channel in channels:
            for number in range(depth // 3):
                layers.append(nn.Conv2d(width, channel, 3, stride=2 if number == 0 else 1, padding=1, bias=False))
                layers.append(nn.BatchNorm2d(channel))
                width = channel
        self.layers = nn.ModuleList(layers)
        self.feature_shape = FeatureShape("vector", width)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the mean of the last map over its places, ``[B, channels[-1]]``."""
        states = inputs["image"].permute(0, 3, 1, 2).float() / 127.5 - 1.0
        for layer in self.layers:
            states = layer(states) if isinstance(layer, nn.Conv2d) else F.relu(layer(states))
        return states.mean(dim=(2, 3))


_NETWORKS = {"mlp": Component(f"{_HERE}DeepPerceptron"), "cnn": Component(f"{_HERE}PlainConv")}


def shifted_letters(seed: int, *, num_train: int, num_val: int, num_test: int) -> Suite:
    """Return letters at random places of a larger canvas.

    Args:
        seed: Draws alphabet, pictures and places.
        num_train: Pictures of the training split; likewise the others.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
    """
    suite = glyphs(
        num_train=num_train, num_val=num_val, num_test=num_test, num_classes=10, size=LETTER, jitter=0.5, noise=0.05, clutter=0,
        seed=seed,
    )  # fmt: skip
    letters = suite.inputs["image"]
    random = Seeds(seed).numpy("places")
    # The paper's own brightness, so that no edge tells where the letter is.
    ground = np.median(letters[:64])
    pictures = np.clip(random.normal(ground, 0.05 * 255, (len(letters), SIZE, SIZE, 1)), 0, 255).repeat(3, axis=3)
    for row, (top, left) in enumerate(random.integers(0, SIZE - LETTER + 1, size=(len(letters), 2))):
        pictures[row, top : top + LETTER, left : left + LETTER] = letters[row]
    return Suite.of_arrays(
        name="shifted-letters",
        input_specs=image_input(SIZE, encoder={"kind": "image", "size": SIZE}),
        tasks=suite.tasks,
        inputs={"image": pictures.astype(np.uint8)},
        targets=dict(suite.targets),
        splits=dict(suite.splits),
    )


def guide_plan() -> Plan:
    """Return how the guide is fine-tuned."""
    stage = TrainStage(
        tuning=Component("graftwork.methods.tuning.full:FullTuning"),
        training={"batch_size": 32, "learning_rate": 1e-3, "evaluations": 0},
    )
    return Plan(
        name="guide", title="The guide", role="joint", modalities=("image",), group="pool", source="pretrained", stages=(stage,)
    )


def student_plan(network: str, objectives: tuple[Component, ...], settings: Mapping[str, Any]) -> Plan:
    """Return how a network is trained: the plan on the card, or the same with another term or none."""
    return card_plan("guidance").with_train(
        backbone=_NETWORKS[network],
        sharing=Component("graftwork.methods.sharing.shared_trunk:SharedTrunk", {"head_hidden": 0}),
        objectives=objectives,
        training={
            "batch_size": BATCH,
            "learning_rate": float(settings["rate"]),
            "weight_decay": float(settings["decay"]),
            "evaluations": 0,
        },
    )


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train one network; measure accuracies in percent on test, validation and training pictures."""
    sizes = context.choose(full=(2000, 400, 2000), smoke=(24, 8, 8))
    suite = shifted_letters(seed, num_train=sizes[0], num_val=sizes[1], num_test=sizes[2])
    data = context.guard(suite)
    settings, kind = arm.settings, str(arm.settings["kind"])
    guide: NeuralLearner | None = None
    if kind in ("trained", "logits", "noise", "early", "guide"):
        steps = context.choose(full=GUIDE_STEPS, smoke=2)
        found = context.source("guide", guide_plan(), suite, steps=steps, backbone=GUIDE)
        assert isinstance(found, NeuralLearner)
        guide = found
    if kind == "guide":
        assert guide is not None
        return _accuracies(guide, data, context)
    steps = context.choose(full=STEPS, smoke=3)
    plan = student_plan(str(settings["network"]), _objectives(arm, guide, steps, data, context), settings)
    learner = context.train(plan, data, steps=steps)
    return _accuracies(learner, data, context)


def _objectives(
    arm: Arm, guide: NeuralLearner | None, steps: int, data: GuardedSuite, context: ArmContext
) -> tuple[Component, ...]:
    kind, weight = str(arm.settings["kind"]), float(arm.settings["weight"])
    (own,) = card_plan("guidance").train.objectives
    if kind == "alone":
        return ()
    if kind == "untrained":
        return (Component(own.path, {"guide": _MINI_CONV, "weight": weight}),)
    assert guide is not None
    if kind == "logits":
        told: dict[str, Any] = {"answers": [_answers(guide, data, context)], "weight": weight}
        return (Component("graftwork.methods.distillation.logit:LogitDistillation", told),)
    weights = context.work / "guide.safetensors"
    state = {name: tensor for name, tensor in guide.best_model.state_dict().items() if name.startswith("backbone.")}
    safetensors.torch.save_file({name.removeprefix("backbone."): value.contiguous() for name, value in state.items()}, weights)
    settings: dict[str, Any] = {"guide": GUIDE, "weights": str(weights), "weight": weight}
    if kind == "noise":
        settings["noise"] = True
    if kind == "early":
        settings["steps"] = max(1, steps // 3)
    return (Component(own.path, settings),)


def _answers(guide: NeuralLearner, data: GuardedSuite, context: ArmContext) -> str:
    """Return the stored answers of the guide for the training pictures; rows of other pictures stay empty, nobody reads them."""
    suite = data.visible
    rows, task = suite.splits["train"], suite.task(TASK)
    said = np.zeros((len(suite), task.num_outputs), dtype=np.float32)
    said[rows] = raw_answers(task, guide.predict(rows, inputs=suite.inputs)[TASK])
    return str(
        store_answers(
            context.work / "answers", f"guide-{context.seed}", "guide", len(suite), lambda part: {f"outputs/{TASK}": said[part]}
        )
    )


def _accuracies(learner: Any, data: GuardedSuite, context: ArmContext) -> dict[str, float]:
    found = {
        name: 100.0 * float(data.score(split, context.predict(learner, data, split))[TASK]["accuracy"])
        for name, split in (("accuracy", "test"), ("validation", "val"), ("train", "train"))
    }
    return {**found, "gap": found["train"] - found["accuracy"]}


_LABELS = Access(source_labels=True)


def _arm(name: str, title: str, network: str, kind: str, **settings: Any) -> Arm:
    return Arm(name, title, _LABELS, {"network": network, "kind": kind, "rate": 1e-3, "decay": 0.02, "weight": 1.0, **settings})


ARMS = (
    _arm("mlp", "the perceptron alone", "mlp", "alone"),
    _arm("mlp-untrained", "the perceptron with an untrained guide", "mlp", "untrained"),
    _arm("mlp-trained", "the perceptron with a trained guide", "mlp", "trained"),
    _arm("mlp-logits", "the perceptron, logits of the trained guide", "mlp", "logits"),
    _arm("mlp-noise", "the perceptron, the guide sees noise", "mlp", "noise"),
    _arm("mlp-early", "the perceptron, trained guide for a third of the steps", "mlp", "early"),
    _arm("cnn", "the plain convolutions alone", "cnn", "alone"),
    _arm("cnn-trained", "the plain convolutions with a trained guide", "cnn", "trained"),
    _arm("cnn-untrained", "the plain convolutions with an untrained guide", "cnn", "untrained"),
    _arm("guide", "the trained guide itself (bound)", "cnn", "guide"),
)


def _claim(name: str, left: str, right: str, margin: float, **options: Any) -> Inequality:
    return Inequality(name, left, right, margin=margin, unit="points", **options)


_UNTRAINED, _TRAINED, _GAP, _PLAIN = (
    "an untrained guide helps the perceptron",
    "a trained guide helps the perceptron",
    "the gap between training and test shrinks",
    "a trained guide helps plain convolutions",
)
_GUIDED: dict[str, tuple[Any, ...]] = {"weight": (0.03, 0.1, 0.3, 1.0)}
_ALONE: dict[str, tuple[Any, ...]] = {"rate": (3e-4, 1e-3, 3e-3, 1e-2)}
_ALONE_ARMS = ("mlp", "cnn")

RECIPE = Recipe(
    slug="guidance",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        _claim(_UNTRAINED, "mlp-untrained.accuracy", "mlp.accuracy", 3.0),
        _claim(_TRAINED, "mlp-trained.accuracy", "mlp.accuracy", 5.0),
        _claim(_GAP, "mlp.gap", "mlp-trained.gap", 0.0),
        _claim(_PLAIN, "cnn-trained.accuracy", "cnn.accuracy", 5.0),
        _claim("a guide that sees noise does not help", "mlp.accuracy", "mlp-noise.accuracy", 1.0, demand="not worse"),
        _claim("the gap shrinks with an untrained guide, too", "mlp.gap", "mlp-untrained.gap", 0.0, primary=False),
        _claim("guidance beats logits", "mlp-trained.accuracy", "mlp-logits.accuracy", 0.0, primary=False),
        _claim("the first third of the steps is enough", "mlp-early.accuracy", "mlp.accuracy", 5.0, primary=False),
        _claim("an untrained guide helps plain convolutions", "cnn-untrained.accuracy", "cnn.accuracy", 0.0, primary=False),
    ),
    headroom=(
        Headroom("guide.accuracy", "mlp.accuracy", margin=3.0, inequalities=(_UNTRAINED,), unit="points"),
        Headroom("guide.accuracy", "mlp.accuracy", margin=5.0, inequalities=(_TRAINED,), unit="points"),
        Headroom("guide.accuracy", "cnn.accuracy", margin=5.0, inequalities=(_PLAIN,), unit="points"),
        Headroom("mlp.gap", "guide.gap", margin=5.0, inequalities=(_GAP,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            arm.name: _ALONE if arm.name in _ALONE_ARMS else _GUIDED for arm in ARMS if arm.name not in ("guide", "mlp-early")
        },
        follows={"mlp-early": "mlp-trained"},
        fixed={"guide": "a bound, not guided"},
        score=("validation",),
    ),
    equal_budget=(
        EqualBudget(("labels",)),
        EqualBudget(("steps", "samples"), ("mlp", "mlp-untrained", "cnn", "cnn-untrained")),
        EqualBudget(("steps", "samples"), ("mlp-trained", "mlp-logits", "mlp-noise", "mlp-early", "cnn-trained")),
    ),
    minutes=50,
    notes=(
        "Letters at random places in place of ImageNet; conv-mini, a small residual network, in place of ResNet-50.",
        "Arms with a trained guide are charged with its training.",
    ),
)
