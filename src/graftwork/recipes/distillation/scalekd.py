"""Reproduction of ScaleKD.

The paper reports, with a Swin-L teacher on ImageNet-1K, 75.15 for MobileNetV1, 82.03 for ResNet-50, 84.16 for ConvNeXt-T, 78.63 for
Mixer-S/16 and 83.93 for ViT-S/16: gains of 2.0 to 5.5 points over the students alone, which grow with the teacher.

Our setting: drawings of 40 emoji, turned, scaled and shifted on noisy grounds, 32 pixels. The teachers are ``vit-mini`` and its
first four blocks, fine-tuned from their pretrained weights on 6,000 pictures; the students a convolutional network, an MLP-Mixer and a
vision transformer of 70 to 220 thousand parameters, which learn from nothing on 1,500 of these pictures. Measured is the mean accuracy
of the three students. Beside ScaleKD stand the students alone, distillation of logits, and FitNets (a convolution and the squared error
of directions, with logits). Ablations: without the view without the constant, without the path through the teacher's last stage,
without cross attention, and without logits. All students make the same 400 steps of 32 pictures without augmentation.

The last stage of ``vit-mini``, which has none, is its last block; projectors have four heads.

The pilot (``--pilot``, seeds 100 and 101) chooses a learning rate of four for the students alone, for logits, FitNets and ScaleKD by
mean validation accuracy; ablations and the smaller teacher follow ScaleKD.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.input_spec import image_input
from graftwork.core.optional import require
from graftwork.core.records import Plan, TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.data.suites.emoji import CREDITS
from graftwork.data.suites.emoji_collage import collage_classes
from graftwork.data.suites.emoji_files import read_pictures
from graftwork.data.teacher_answers import store_answers
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.nn.mlp import mlp
from graftwork.tasks.raw_answers import raw_answers
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "STUDENTS", "FirstBlocks", "MixerBackbone", "emoji_drawings", "run_arm"]

TASK, SIZE, CLASSES = "drawing", 32, 40
STEPS, BATCH, TEACHER_STEPS = 400, 32, 300
TEACHERS: Mapping[str, int] = {"large": 10, "small": 4}
"""Blocks of ``vit-mini`` that a teacher has."""
_HERE = "graftwork.recipes.distillation.scalekd:"
_NN = "graftwork.nn.backbones."


class FirstBlocks(MiniViT):
    """The first blocks of ``vit-mini`` with their pretrained weights.

    Args:
        depth: Number of blocks, at most 10.
        size: Working resolution in pixels.
    """

    def __init__(self, depth: int = 10, size: int = SIZE) -> None:
        super().__init__(depth=depth, size=size)
        state = safetensors.torch.load_file(shipped_backbones()["vit-mini"].file)
        own = self.state_dict()
        self.load_state_dict({name: state[name].to(value.dtype) for name, value in own.items()}, strict=True)


class MixerBackbone(Backbone):
    """An MLP-Mixer: patches, and blocks that mix places and channels in turn (Tolstikhin et al., 2021).

    Args:
        size: Side of the pictures.
        patch: Side of a patch.
        width: Width of the tokens.
        depth: Number of blocks.
    """

    def __init__(self, size: int = SIZE, patch: int = 4, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        places = (size // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.blocks = nn.ModuleList(_MixerBlock(places, width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.feature_shape = FeatureShape("tokens", width, (places,))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return normalised tokens ``[B, places, width]``."""
        states = self.patches(inputs["image"].permute(0, 3, 1, 2).float() / 127.5 - 1.0).flatten(2).transpose(1, 2)
        for block in self.blocks:
            states = block(states)
        tokens: Tensor = self.norm(states)
        return tokens


class _MixerBlock(nn.Module):
    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.place_norm, self.width_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_places, self.over_width = mlp([places, 2 * places, places]), mlp([width, 4 * width, width])

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.over_places(self.place_norm(states).transpose(1, 2)).transpose(1, 2)
        return states + self.over_width(self.width_norm(states))


STUDENTS: Mapping[str, Component] = {
    "cnn": Component(f"{_NN}cnn:ConvBackbone", {"image_size": SIZE, "channels": [16, 32, 64, 64]}),
    "mixer": Component(f"{_HERE}MixerBackbone"),
    "vit": Component(f"{_NN}vit:ViTBackbone", {"image_size": SIZE, "patch": 4, "width": 64, "depth": 4, "num_heads": 4}),
}
UPPER: Mapping[str, str] = {"cnn": "backbone.stages.2", "mixer": "backbone.blocks.3", "vit": "backbone.blocks.3"}
"""The upper map of each student."""


def emoji_drawings(seed: int, *, num_train: int, num_val: int, num_test: int, classes: int = CLASSES) -> Suite:
    """Return drawings of emoji, one a picture and class, turned, scaled, shifted and dimmed on noisy grounds.

    Args:
        seed: Draws classes and pictures.
        num_train: Pictures of the training split; likewise the others.
        num_val: See ``num_train``.
        num_test: See ``num_train``.
        classes: Number of emoji.
    """
    chosen = collage_classes(classes, seed=seed)
    drawings = list(read_pictures(chosen))
    random = Seeds(seed).numpy("emoji-drawings")
    bounds = np.cumsum([0, num_train, num_val, num_test])
    labels = random.integers(0, classes, size=int(bounds[-1]))
    pictures = np.stack(list(_drawn([drawings[label] for label in labels], random)))
    return Suite.of_arrays(
        name="emoji-drawings",
        input_specs=image_input(SIZE, encoder={"kind": "image", "size": SIZE}),
        tasks=[TaskSpec(name=TASK, kind="multiclass", size=classes, classes=tuple(item.name for item in chosen))],
        inputs={"image": pictures},
        targets={TASK: labels},
        splits={name: np.arange(bounds[place], bounds[place + 1]) for place, name in enumerate(("train", "val", "test"))},
        credits={name: CREDITS[name] for name in ("Twemoji", "labels")},
    )


def _drawn(drawings: list[Any], random: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    images = require("PIL.Image", extra="vision", purpose="The emoji drawings")
    for drawing in drawings:
        side = round(SIZE * random.uniform(0.5, 0.9))
        turned = drawing.rotate(random.uniform(-45.0, 45.0), resample=images.Resampling.BICUBIC)
        small = np.asarray(turned.resize((side, side), images.Resampling.BOX), dtype=np.float32) / 255.0
        top, left = random.integers(0, SIZE - side + 1, size=2)
        canvas = np.ones((SIZE, SIZE, 3), np.float32) * random.uniform(0.1, 0.9, 3).astype(np.float32)
        alpha, place = small[..., 3:], (slice(top, top + side), slice(left, left + side))
        canvas[place] = (1.0 - alpha) * canvas[place] + alpha * small[..., :3] * random.uniform(0.6, 1.0)
        noisy = canvas + 0.1 * random.standard_normal(canvas.shape)
        yield np.round(np.clip(noisy, 0.0, 1.0) * 255.0).astype(np.uint8)


def teacher_plan(name: str) -> Plan:
    """Return how a teacher is fine-tuned."""
    stage = TrainStage(
        backbone=Component(f"{_HERE}FirstBlocks", {"depth": TEACHERS[name]}),
        training={"batch_size": BATCH, "learning_rate": 3e-4, "warmup_steps": 20, "evaluations": 0},
    )
    return Plan(name=f"teacher-{name}", title="A teacher", role="joint", modalities=("image",), group="pool", stages=(stage,))


def student_plan(student: str, objectives: tuple[Component, ...], rate: float) -> Plan:
    """Return how a student is trained: the plan on the card, or the same with another term or none."""
    return card_plan("scalekd").with_train(
        backbone=STUDENTS[student],
        objectives=objectives,
        training={"batch_size": BATCH, "learning_rate": rate, "weight_decay": 0.05, "warmup_steps": 20, "evaluations": 0},
    )


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train each student once; measure accuracies in percent and their mean."""
    sizes = context.choose(full=(6000, 500, 2000), smoke=(32, 8, 8))
    whole = emoji_drawings(seed, num_train=sizes[0], num_val=sizes[1], num_test=sizes[2])
    few = whole.with_splits({**whole.splits, "train": whole.splits["train"][: sizes[0] // 4]})
    kind, which = str(arm.settings["kind"]), str(arm.settings["teacher"])
    teacher: NeuralLearner | None = None
    if kind != "alone":
        steps = context.choose(full=TEACHER_STEPS, smoke=1)
        found = context.source(f"teacher-{which}", teacher_plan(which), whole, steps=steps)
        assert isinstance(found, NeuralLearner)
        teacher = found
    if kind == "teacher":
        assert teacher is not None
        score = _accuracies(teacher, context.guard(whole), context)
        return {"mean": score["test"], "validation": score["val"]}
    data = context.guard(few)
    files = None if teacher is None else _teacher_files(which, teacher, data, context)
    steps = context.choose(full=STEPS, smoke=1)
    scores = {}
    for name in (str(item) for item in arm.settings["students"]):
        plan = student_plan(name, _objectives(arm, name, files), float(arm.settings["rate"]))
        scores[name] = _accuracies(context.train(plan, data, steps=steps), data, context)
    return {
        "mean": float(np.mean([score["test"] for score in scores.values()])),
        "validation": float(np.mean([score["val"] for score in scores.values()])),
        "student": {name: score["test"] for name, score in scores.items()},
    }


def _teacher_files(which: str, teacher: NeuralLearner, data: GuardedSuite, context: ArmContext) -> tuple[str, str]:
    """Write what a teacher says of the students' training pictures, and its weights; return both places."""
    suite = data.visible
    rows, task = suite.splits["train"], suite.task(TASK)
    said = np.zeros((len(suite), task.num_outputs), dtype=np.float32)
    said[rows] = raw_answers(task, teacher.predict(rows, inputs=suite.inputs)[TASK])

    def answer(part: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        return {f"outputs/{TASK}": said[part]}

    answers = store_answers(context.work / "answers", f"{which}-{context.seed}", which, len(suite), answer)
    weights = context.work / f"{which}.safetensors"
    state = teacher.best_model.state_dict()
    own = {name.removeprefix("backbone."): value.contiguous() for name, value in state.items() if name.startswith("backbone.")}
    safetensors.torch.save_file(own, weights)
    return str(answers), str(weights)


def _objectives(arm: Arm, student: str, files: tuple[str, str] | None) -> tuple[Component, ...]:
    if files is None:
        return ()
    answers, weights = files
    if arm.settings["kind"] == "logits":
        settings = {"answers": [answers], "weight": 1.0, "temperature": 1.0}
        return (Component("graftwork.methods.distillation.logit:LogitDistillation", settings),)
    (component,) = card_plan("scalekd").train.objectives
    changed: dict[str, Any] = {
        "teacher": {"path": f"{_HERE}FirstBlocks", "settings": {"depth": TEACHERS[str(arm.settings["teacher"])]}},
        "weights": weights,
        "answers": [answers],
        "stage": 1,
        "taps": [UPPER[student]] if arm.settings["upper"] else [],
        **arm.settings["changed"],
    }
    return (Component(component.path, changed),)


def _accuracies(learner: Any, data: GuardedSuite, context: ArmContext) -> dict[str, float]:
    return {
        split: 100.0 * float(data.score(split, context.predict(learner, data, split))[TASK]["accuracy"])
        for split in ("val", "test")
    }


def _arm(name: str, title: str, kind: str, *, teacher: str = "large", upper: bool = False, one: str = "", **changed: Any) -> Arm:
    """Return an arm; `upper` takes the upper maps alone, `one` a single student, `changed` are settings of ScaleKD."""
    students = [one] if one else list(STUDENTS)
    settings = {"kind": kind, "teacher": teacher, "students": students, "upper": upper, "changed": changed, "rate": 2e-3}
    return Arm(name, title, Access(source_labels=True), settings)


ARMS = (
    _arm("alone", "the students alone", "alone"),
    _arm("logits", "distillation of logits", "logits"),
    _arm("fitnet", "logits, and features by a convolution", "scalekd", upper=True, projector="convolution", alpha=0.14, beta=0.0),
    _arm("scalekd", "ScaleKD", "scalekd"),
    _arm("scalekd-small", "ScaleKD from the smaller teacher", "scalekd", teacher="small"),
    _arm("one-view", "the CNN without the varying view", "scalekd", one="cnn", beta=0.0),
    _arm("no-stage", "the CNN without the teacher's last stage", "scalekd", one="cnn", upper=True),
    _arm("no-attention", "the CNN with convolutions in place of cross attention", "scalekd", one="cnn", projector="convolution"),
    _arm("no-logits", "the CNN without logits", "scalekd", one="cnn", answers=[]),
    _arm("teacher", "the larger teacher itself (bound)", "teacher"),
    _arm("teacher-small", "the smaller teacher itself", "teacher", teacher="small"),
)


def _claim(name: str, left: str, right: str, margin: float = 0.0, **options: Any) -> Inequality:
    return Inequality(name, f"{left}.mean", f"{right}.mean", margin=margin, unit="points", **options)


def _part(name: str, ablation: str) -> Inequality:
    return Inequality(name, "scalekd.student.cnn", f"{ablation}.student.cnn", primary=False, unit="points")


_ALONE, _LOGITS, _LARGER = "beats the students alone", "beats distillation of logits", "the larger teacher helps more"
_RATES = (5e-4, 1e-3, 2e-3, 4e-3)
_FOLLOWS = ("scalekd-small", "one-view", "no-stage", "no-attention", "no-logits")

RECIPE = Recipe(
    slug="scalekd",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        _claim(_ALONE, "scalekd", "alone", 2.0),
        _claim(_LOGITS, "scalekd", "logits", 0.5),
        Inequality(
            "logits are not worse than the students alone",
            "logits.mean",
            "alone.mean",
            margin=0.5,
            demand="not worse",
            unit="points",
        ),
        _claim(_LARGER, "scalekd", "scalekd-small"),
        _claim("beats features by a convolution", "scalekd", "fitnet", primary=False),
        _part("the varying view helps", "one-view"),
        _part("the teacher's last stage helps", "no-stage"),
        _part("cross attention helps", "no-attention"),
        _part("logits help", "no-logits"),
    ),
    headroom=(
        Headroom("teacher.mean", "alone.mean", margin=2.0, inequalities=(_ALONE,), unit="points"),
        Headroom("teacher.mean", "logits.mean", margin=0.5, inequalities=(_LOGITS,), unit="points"),
        Headroom("teacher.mean", "teacher-small.mean", margin=1.0, inequalities=(_LARGER,), unit="points"),
    ),
    pilot=Pilot(
        grids={name: {"rate": _RATES} for name in ("alone", "logits", "fitnet", "scalekd")},
        follows=dict.fromkeys(_FOLLOWS, "scalekd"),
        fixed={"teacher": "a bound, which no student changes", "teacher-small": "a teacher, which no student changes"},
        score=("validation",),
    ),
    equal_budget=(
        EqualBudget(("labels", "steps", "samples"), ("logits", "fitnet", "scalekd", "scalekd-small")),
        EqualBudget(("steps", "samples"), ("one-view", "no-stage", "no-attention", "no-logits")),
    ),
    minutes=90,
    notes=(
        "Drawings of emoji and vit-mini in place of ImageNet and Swin-L; the students are of 70 to 220 thousand parameters.",
        "Arms with a teacher are charged with its training, and with the labels of the 6,000 pictures that it learned from.",
    ),
)
