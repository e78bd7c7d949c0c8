"""Reproduction of distillation from similar tasks (DistillNearest, DistillWeighted).

The paper reports, averaged over eight targets, DistillWeighted 5.6 points over fine-tuning from ImageNet weights and 4.5 points
over FixMatch; figures not verified here.

Our setting: letters of invented alphabets at 16 pixels, drawn in several styles. Eight source models (CNNs of about 130 thousand
parameters), each trained on an alphabet of its own: in the plain, inverted, striped, blurred, outlined and noisy style, with four
classes only, and with shuffled labels, which cannot have learned anything. Four targets with other alphabets, in the plain,
inverted, striped and noisy style: 12 classes, 5 labelled pictures of each, 1,500 without labels. The student is a residual
network of about 20 thousand parameters that begins from the same weights in all arms: those of a student trained on the blurred
alphabet, which stands for a generic pretraining. Similarities (PARC) are measured on the 60 labelled pictures alone.

The arms: fine-tuning on the labels; FixMatch on the same unlabelled pictures; distillation from a random source, from all sources
alike, from the nearest one, and from all weighted by similarity. ``told`` bounds what can be won: it has the labels of all
pictures.

Every arm tries five learning rates on seeds 100 and 101, by the accuracy on 300 validation pictures of each target. The weight of
the sources is 4 (a lambda of 0.8) and the power of the similarities 9, the lower of the values that are remembered of the paper;
FixMatch has its authors' weight of 1 and threshold of 0.95. The counting run cannot begin before that pilot has been made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Recipe
from graftwork.claims.grids import Pilot
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.batch import UNLABELLED
from graftwork.core.components import Component
from graftwork.core.records import Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.data.suites.glyph_styles import SOURCES, TARGETS, GlyphDomain, draw_domain
from graftwork.data.teacher_answers import read_answers, store_answers
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.math.representation_similarity import parc, similarity_weights
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "FixMatch", "changed_pictures", "run_arm"]

TASK = "letter"
SHOTS, POWER = 5, 9.0
SOURCE_STEPS, GENERIC_STEPS, STEPS = 500, 300, 400
GENERIC = "blurred"
_NN = "graftwork.nn.backbones."
_CHOSEN = ("plain", "plain-few-classes", "inverted", "striped", "blurred", "outlined", "noisy", "shuffled")
_SOURCES = tuple(domain for domain in SOURCES if domain.name in _CHOSEN)
_TEACHER = Component(f"{_NN}cnn:ConvBackbone", {"image_size": 16, "channels": [24, 48, 96, 96]})
_STUDENT = Component(f"{_NN}cifar_resnet:CifarResNet", {"depth": 8, "channels": [8, 16, 32]})


def changed_pictures(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Return a strong change of each picture: shifted by up to two pixels, with a grey patch of six pixels and other contrast.

    Args:
        pictures: uint8 ``[B, 16, 16, 3]``.
        random: Draws the changes.
    """
    count, side = len(pictures), pictures.shape[1]
    values = pictures.permute(0, 3, 1, 2).float()
    shift = torch.randint(-2, 3, (count, 2), generator=random)
    index = torch.arange(side)
    rows, columns = ((index[None] - shift[:, axis, None]).clamp(0, side - 1) for axis in (0, 1))
    number = torch.arange(count)
    values = values.permute(0, 2, 3, 1)[number[:, None, None], rows[:, :, None], columns[:, None, :]]
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=random)
    values = (values - 127.5) * contrast + 127.5
    corner = torch.randint(0, side - 5, (count, 2), generator=random)
    inside = ((index[None] >= corner[:, 0, None]) & (index[None] < corner[:, 0, None] + 6))[:, :, None] & (
        (index[None] >= corner[:, 1, None]) & (index[None] < corner[:, 1, None] + 6)
    )[:, None, :]
    return values.masked_fill(inside.unsqueeze(3), 127.5).clamp(0, 255).to(torch.uint8)


class FixMatch(Objective):
    """The baseline: on rows without labels, the cross-entropy of a strongly changed picture with the answer for the picture as it
    is, where that is sure (Sohn et al., "FixMatch", NeurIPS 2020).

    Args:
        weight: Factor of the term.
        threshold: Least probability of an answer that counts.
        seed: Draws the changes, with the step.
    """

    def __init__(self, weight: float = 1.0, threshold: float = 0.95, seed: int = 0) -> None:
        self.weight, self.threshold, self.seed = weight, threshold, seed

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted term, a mean over all rows without labels, sure or not."""
        batch = inputs.batch
        chosen = (batch.role == UNLABELLED).nonzero().squeeze(1)
        probabilities = inputs.outputs[TASK][chosen].detach().softmax(dim=1)
        sure, label = probabilities.max(dim=1)
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + inputs.step)
        outputs = inputs.model({"image": changed_pictures(batch.inputs["image"][chosen], random)})[TASK]
        losses = F.cross_entropy(outputs, label, reduction="none")
        return self.weight * (losses * (sure >= self.threshold)).sum() / max(len(chosen), 1)


def _plan(name: str, trunk: Component) -> Plan:
    stage = TrainStage(backbone=trunk, training={"batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.02})
    return Plan(name=name, title=name, role="joint", modalities=("image",), group="pool", stages=(stage,))


def source_suite(domain: GlyphDomain, seed: int, context: ArmContext) -> Suite:
    """Return a source's own pictures, a tenth of them for validation."""
    rows = context.choose(full=3000, smoke=120)
    suite = draw_domain(domain, num_train=rows, num_test=20, seed=seed)
    train = suite.splits["train"]
    val = max(20, len(train) // 10)
    return suite.with_splits({**suite.splits, "train": train[val:], "val": train[:val]})


def target_suite(domain: GlyphDomain, seed: int, context: ArmContext) -> Suite:
    """Return a target: a few labelled pictures of each class in ``train``, all others in ``target``."""
    rows, num_val, num_test = context.choose(full=(1860, 300, 1500), smoke=(150, 30, 40))
    suite = draw_domain(domain, num_train=rows, num_test=num_test, seed=seed)
    train, labels = suite.splits["train"], suite.targets[TASK]
    val, rest = train[:num_val], train[num_val:]
    few = np.concatenate([rest[labels[rest] == letter][:SHOTS] for letter in range(domain.classes)])
    return suite.with_splits({**suite.splits, "train": few, "val": val, "target": np.setdiff1d(rest, few)})


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train a student for each target; measure accuracies in percent."""
    settings = arm.settings
    kind = str(settings["kind"])
    teaches = kind in ("random", "equal", "nearest", "weighted")
    names = [domain.name for domain in _SOURCES][: context.choose(full=len(_SOURCES), smoke=2)]
    generic = context.source(
        "generic", _plan("generic", _STUDENT), source_suite(_named(GENERIC), seed, context),
        steps=context.choose(full=GENERIC_STEPS, smoke=4),
    )  # fmt: skip
    assert isinstance(generic, NeuralLearner)
    # The trunk alone: the head belongs to other letters.
    start = {
        name: tensor.detach().clone() for name, tensor in generic.best_model.state_dict().items() if name.startswith("backbone.")
    }
    found: dict[str, dict[str, float]] = {"accuracy": {}, "validation": {}}
    for domain in TARGETS[: context.choose(full=len(TARGETS), smoke=1)]:
        suite = target_suite(domain, seed, context)
        data = context.guard(suite)
        answers = [_answers(name, domain.name, suite, data, seed, context) for name in names] if teaches else []
        weights = _weights(kind, answers, data, context) if teaches else []
        plan = student_plan(kind, answers, weights, settings, context)
        steps = context.choose(full=STEPS, smoke=4)
        learner = context.train(plan, data, steps=steps, start=start)
        for measure, split in (("accuracy", "test"), ("validation", "val")):
            found[measure][domain.name] = 100.0 * data.score(split, context.predict(learner, data, split))[TASK]["accuracy"]
    return {
        "mean": float(np.mean(list(found["accuracy"].values()))),
        "validation": float(np.mean(list(found["validation"].values()))),
        "targets": found["accuracy"],
    }


def _named(name: str) -> GlyphDomain:
    return next(domain for domain in SOURCES if domain.name == name)


def student_plan(kind: str, answers: list[str], weights: list[float], settings: Mapping[str, Any], context: ArmContext) -> Plan:
    """Return what an arm trains: the plan on the card, or the same with another objective or none.

    Args:
        kind: Of the arm.
        answers: Stored answers of the sources.
        weights: Their weights.
        settings: ``rate``, and ``weight`` of the term.
        context: The arm.
    """
    plan = card_plan("distill-similar")
    (own,) = plan.train.objectives
    quotas = [{"role": "labelled", "rows": 60}, {"role": "unlabelled", "rows": 60}]
    objectives: tuple[Component, ...]
    if kind == "fixmatch":
        seed = context.seeds.integer("changes") % 2**31
        objectives = (
            Component("graftwork.recipes.distillation.distill_similar:FixMatch", {"weight": settings["weight"], "seed": seed}),
        )
    elif kind in ("finetune", "told"):
        objectives, quotas = (), [{"role": "labelled", "rows": 60}]
    else:
        objectives = (
            Component(own.path, {**own.settings, "answers": answers, "teacher_weights": weights, "weight": settings["weight"]}),
        )
    training = {
        **plan.train.training,
        "quotas": quotas,
        "learning_rate": settings["rate"],
        "weight_decay": 0.02,
    }
    return dataclasses.replace(
        plan.with_train(backbone=_STUDENT, objectives=objectives, training=training), name=f"student-{kind}"
    )


def _answers(name: str, target: str, suite: Suite, data: GuardedSuite, seed: int, context: ArmContext) -> str:
    """Return the stored class probabilities and features of a source for the pictures of a target that the arm may see."""
    steps = context.choose(full=SOURCE_STEPS, smoke=4)
    learner = context.source(name, _plan(f"source-{name}", _TEACHER), source_suite(_named(name), seed, context), steps=steps)
    assert isinstance(learner, NeuralLearner)
    pictures = np.asarray(data.visible.inputs["image"])

    @torch.inference_mode()
    def ask(rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        states = learner.best_model.encode({"image": torch.from_numpy(pictures[rows])})
        assert isinstance(states, Tensor)
        classes = learner.best_model.decode(states)[TASK].softmax(dim=1)
        return {"classes": classes.numpy(), "features": states.numpy()}

    return str(store_answers(context.work / "answers", f"{name}-{target}-{seed}", name, len(suite), ask, batch_size=256))


def _weights(kind: str, answers: list[str], data: GuardedSuite, context: ArmContext) -> list[float]:
    """Return the weight of each source: by similarity on the labelled pictures, alike, or all on one."""
    count = len(answers)
    if kind == "equal":
        return [1.0 / count] * count
    if kind == "random":
        chosen = int(context.seeds.numpy("random source").integers(count))
        return [float(number == chosen) for number in range(count)]
    rows = data.visible.splits["train"]
    labels = np.asarray(data.visible.targets[TASK][rows])
    features = [read_answers(entry).features for entry in answers]
    similar = np.array([parc(np.asarray(item[rows]), labels) if item is not None else 0.0 for item in features])
    if kind == "nearest":
        return [float(number == int(similar.argmax())) for number in range(count)]
    return [float(weight) for weight in similarity_weights(similar, POWER)]


_FEW = Access(source_labels=True)
_UNLABELLED = Access(source_labels=True, target_inputs=True)
_TOLD = Access(source_labels=True, target_inputs=True, target_labels=True)


def _arm(name: str, title: str, access: Access, **settings: Any) -> Arm:
    return Arm(name, title, access, {"kind": name, "rate": 2e-3, **settings})


ARMS = (
    _arm("finetune", "fine-tuning on the few labels", _FEW),
    _arm("fixmatch", "FixMatch", _UNLABELLED, weight=1.0),
    _arm("random", "distillation from a random source", _UNLABELLED, weight=4.0),
    _arm("equal", "distillation from all sources alike", _UNLABELLED, weight=4.0),
    _arm("nearest", "distillation from the nearest source (DistillNearest)", _UNLABELLED, weight=4.0),
    _arm("weighted", "distillation weighted by similarity (DistillWeighted)", _UNLABELLED, weight=4.0),
    _arm("told", "labels of all pictures (bound)", _TOLD),
)
_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
RECIPE = Recipe(
    slug="distill-similar",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        Inequality("beats fine-tuning", "weighted.mean", "finetune.mean", margin=3.0, unit="points"),
        Inequality("beats FixMatch", "weighted.mean", "fixmatch.mean", margin=1.5, unit="points"),
        Inequality("the nearest source beats a random one", "nearest.mean", "random.mean", margin=1.5, unit="points"),
        Inequality("similarity beats equal weights", "weighted.mean", "equal.mean", margin=0.5, unit="points"),
    ),
    headroom=(
        Headroom("told.mean", "finetune.mean", margin=3.0, inequalities=("beats fine-tuning",), unit="points"),
        Headroom("told.mean", "fixmatch.mean", margin=1.5, inequalities=("beats FixMatch",), unit="points"),
        Headroom("told.mean", "random.mean", margin=1.5, inequalities=("the nearest source beats a random one",), unit="points"),
        Headroom("told.mean", "equal.mean", margin=0.5, inequalities=("similarity beats equal weights",), unit="points"),
    ),
    pilot=Pilot(grids={arm.name: {"rate": _RATES} for arm in ARMS}, score=("validation",)),
    equal_budget=(
        EqualBudget(("labels",), arms=("random", "equal", "nearest", "weighted")),
        EqualBudget(("steps", "samples"), arms=("random", "equal", "nearest", "weighted")),
    ),
    minutes=25,
    notes=(
        "Generated letters in drawing styles in place of photographs; the student begins from a student of the blurred alphabet.",
        "Distilling arms are charged with the training of the sources, which fine-tuning and FixMatch do without.",
    ),
)
