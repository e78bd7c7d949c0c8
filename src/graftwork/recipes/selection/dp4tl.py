"""Reproduction of DP4TL, which drops source classes that the target does not need before pre-training.

The paper: over eight or nine targets 40 to 80 % of the classes of ImageNet can be dropped without loss of target accuracy, pre-training
becomes 2 to 5 times faster, and random pruning or scores of single rows lose accuracy; figures not verified here.

Our setting: a source of 48 letters at 16 pixels, eight of an alphabet of its own in each of six drawing styles (plain, inverted, striped,
blurred, outlined, noisy), 60 pictures each. Three targets of 12 new letters with 15 labelled pictures each, in the inverted, striped and
outlined style. The surrogate is a convolutional network of about 15 thousand parameters, trained once on the whole source, with labels
for label mapping and without (contrasted views) for feature mapping; the large one has about 170 thousand. Pre-training passes equally
often over what is kept, so a pruned source takes fewer steps; all weights are then fine-tuned on the target.

The arms: the full source; label mapping; feature mapping (k-means into 48 groups, the same number of rows, then the labels of these
rows); random classes; no pre-training; ``told`` keeps the classes of the target's own style first, then the others at random, and bounds
what can be won. Measured is the accuracy on 600 test rows in percent at 60 and 80 % pruned, mean over targets, and the CPU seconds of
pre-training, to which the surrogate's are added in full, though it serves all targets. The rate of fine-tuning is tuned for each arm on pilot seeds. About 3 minutes a seed.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Recipe
from graftwork.claims.grids import Pilot
from graftwork.core.files import read_json, write_bytes, write_json
from graftwork.data.suites.glyph_styles import SIZE, GlyphDomain, draw_domain
from graftwork.methods.selection.dp4tl import ClassRanking, feature_votes, label_votes, source_groups
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.training.source_pool.fitting import BATCH, Classifier, fit_classifier, predict_probabilities
from graftwork.training.source_pool.lessons import Lesson, fit_lesson, head_width

__all__ = ["ARMS", "RECIPE", "STYLES", "TARGETS", "Source", "kept_rows", "run_arm", "source_rows"]

TASK = "letter"
STYLES = ("plain", "inverted", "striped", "blurred", "outlined", "noisy")
LETTERS = 8
"""Of each style."""
TARGETS = ("inverted", "striped", "outlined")
RATIOS = (60, 80)
_LESSONS: dict[str, Lesson] = {"lm": "labels", "fm": "views"}
"""What the surrogate of a mapping learns from."""
_SMALL, _LARGE = (8, 16, 32, 32), (32, 64, 96, 96)
_RATE = 3e-3
Pictures = NDArray[np.uint8]
Ints = NDArray[np.int64]


def _domain(name: str, style: str, classes: int) -> GlyphDomain:
    return GlyphDomain(
        name=name, style="plain" if style == "noisy" else style, noise=0.5 if style == "noisy" else 0.2, classes=classes
    )


class Source:
    """The pictures of all source classes; class ``8 s + l`` is the letter ``l`` of the style ``s``.

    Args:
        images: ``[n, S, S, 3]``.
        labels: ``[n]``.
    """

    def __init__(self, images: Pictures, labels: Ints) -> None:
        self.images, self.labels = images, labels


def source_rows(context: ArmContext) -> Source:
    """Return the source through the arm's guard."""
    each = context.choose(full=60, smoke=3)
    images, labels = [], []
    for place, style in enumerate(STYLES):
        domain = _domain(f"source {style}", style, LETTERS)
        suite = draw_domain(domain, num_train=each * LETTERS, num_test=1, seed=context.seed)
        visible = context.guard(suite).visible
        rows = visible.splits["train"]
        images.append(np.asarray(visible.inputs["image"])[rows])
        labels.append(np.asarray(visible.targets[TASK])[rows] + place * LETTERS)
    return Source(np.concatenate(images), np.concatenate(labels))


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Pre-train on what the arm keeps, fine-tune on every target; measure accuracies and the time of pre-training."""
    torch.set_num_threads(1)  # sums in another order would give other bits
    source = source_rows(context)
    kind = str(arm.settings["keeps"])
    found: dict[str, list[float]] = {}
    for number, style in enumerate(TARGETS[: context.choose(full=len(TARGETS), smoke=1)]):
        rows, num_test = context.choose(full=(180, 600), smoke=(36, 40))
        data = context.guard(draw_domain(_domain(f"target {style}", style, 12), num_train=rows, num_test=num_test, seed=seed))
        train = data.visible.splits["train"]
        images, labels = np.asarray(data.visible.inputs["image"])[train], np.asarray(data.visible.targets[TASK])[train]
        asked = np.asarray(data.questions("test").inputs["image"])[data.rows("test")]
        for ratio in RATIOS:
            context.progress((number + ratio / 100) / len(TARGETS), f"{style}, {ratio} % pruned")
            start, seconds = None, 0.0
            if kind != "scratch":
                pruned = 0.0 if kind == "full" else ratio / 100.0
                place = "pretrained-full" if kind == "full" else f"pretrained-{kind}-{style}-{ratio}"
                kept = kept_rows(kind, pruned, source, images, style, context)
                start, seconds = _pretrained(place, source, kept, context)
                if kind in _LESSONS:
                    seconds += _surrogate(_LESSONS[kind], source, context)[1]
            if kind in ("full", "scratch") and ratio != RATIOS[0]:
                found[f"{style}.{ratio}"], found[f"seconds.{ratio}"] = (
                    found[f"{style}.{RATIOS[0]}"],
                    found[f"seconds.{RATIOS[0]}"],
                )
                continue
            model = _network(_LARGE, 12, context, f"head for {style}")
            if start is not None:
                model.backbone.load_state_dict(start)
            steps = context.choose(full=100, smoke=2)
            fit_classifier(
                model, images, labels, steps=steps, rate=arm.settings["rate"], seed=context.seeds.integer(f"fine-tuning {style}")
            )
            _charge(context, steps, len(labels))
            accuracy = data.score("test", {TASK: predict_probabilities(model, asked)})[TASK]["accuracy"]
            found[f"{style}.{ratio}"] = [100.0 * accuracy]
            found.setdefault(f"seconds.{ratio}", []).append(seconds)
    styles = [style for style in TARGETS if f"{style}.{RATIOS[0]}" in found]
    return {
        **{f"at{ratio}": float(np.mean([found[f"{style}.{ratio}"] for style in styles])) for ratio in RATIOS},
        **{f"seconds{ratio}": float(np.mean(found[f"seconds.{ratio}"])) for ratio in RATIOS},
    }


def kept_rows(kind: str, pruned: float, source: Source, target: Pictures, style: str, context: ArmContext) -> Ints:
    """Return the rows of the source that an arm pre-trains on.

    Args:
        kind: ``"full"``, ``"random"``, ``"told"``, ``"lm"`` or ``"fm"``.
        pruned: Share that is dropped.
        source: All of it.
        target: Training pictures of the target.
        style: Style of the target, which only ``"told"`` looks at.
        context: The arm.
    """
    seed = context.seeds.integer(f"kept for {style}") % 2**31
    count = len(STYLES) * LETTERS
    if kind == "full":
        return np.arange(len(source.labels))
    if kind == "fm":
        model, _ = _surrogate(_LESSONS[kind], source, context)
        groups, centres = source_groups(_features(model, source.images), count, seed=seed)
        return ClassRanking(feature_votes(_features(model, target), centres), seed).kept_rows(groups, pruned)
    if kind == "lm":
        model, _ = _surrogate(_LESSONS[kind], source, context)
        votes = label_votes(predict_probabilities(model, target))
    elif kind == "told":
        votes = (np.arange(count) // LETTERS == STYLES.index(style)).astype(np.int64)
    else:
        votes = np.ones(count, dtype=np.int64)
    return ClassRanking(votes, seed).kept_rows(source.labels, pruned)


def _network(channels: tuple[int, ...], outputs: int, context: ArmContext, name: str) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(context.seeds.integer(name))
        return Classifier(ConvBackbone(SIZE, channels=channels), outputs)


def _surrogate(lesson: Lesson, source: Source, context: ArmContext) -> tuple[Classifier, float]:
    """Return the surrogate, and the CPU seconds of its training."""
    width = head_width(lesson, len(STYLES) * LETTERS)
    model = _network(_SMALL, width, context, "surrogate")

    def build(folder: Path) -> None:
        steps = context.choose(full=400, smoke=2)
        begin = time.process_time()
        fit_lesson(model, lesson, source.images, source.labels, steps=steps, rate=_RATE, seed=context.seeds.integer("surrogate"))
        _store(model, time.process_time() - begin, folder)
        _charge(context, steps, len(source.labels))

    return model, _load(model, context.once(f"surrogate-{lesson}", build))


def _pretrained(name: str, source: Source, kept: Ints, context: ArmContext) -> tuple[dict[str, torch.Tensor], float]:
    """Return the weights of a large backbone after pre-training on some rows, and its CPU seconds."""
    classes, labels = np.unique(source.labels[kept], return_inverse=True)
    model = _network(_LARGE, len(classes), context, "large")

    def build(folder: Path) -> None:
        # The same number of passes over what is kept.
        steps = max(1, round(context.choose(full=450, smoke=4) * len(kept) / len(source.labels)))
        begin = time.process_time()
        fit_classifier(
            model, source.images[kept], labels.reshape(-1).astype(np.int64), steps=steps, rate=_RATE,
            seed=context.seeds.integer("pre-training"),
        )  # fmt: skip
        _store(model, time.process_time() - begin, folder)
        _charge(context, steps, len(kept))

    seconds = _load(model, context.once(name, build))
    return model.backbone.state_dict(), seconds


def _charge(context: ArmContext, steps: int, rows: int) -> None:
    context.count("steps", steps)
    context.count("samples", steps * min(BATCH, rows))


def _store(model: Classifier, seconds: float, folder: Path) -> None:
    write_json(folder / "time.json", {"seconds": seconds})
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    write_bytes(folder / "model.safetensors", safetensors.torch.save(state))


def _load(model: Classifier, folder: Path) -> float:
    """Read a stored network in place, and leave it in evaluation mode; return the seconds that it took."""
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    model.eval()
    return float(read_json(folder / "time.json")["seconds"])


@torch.inference_mode()
def _features(model: Classifier, images: Pictures) -> NDArray[np.float32]:
    parts = [model.backbone({"image": torch.from_numpy(images[start : start + 256])}) for start in range(0, len(images), 256)]
    return torch.cat(parts).numpy()


_SEES = Access(source_labels=True)


def _arm(name: str, title: str) -> Arm:
    return Arm(name, title, _SEES, {"keeps": name, "rate": 2e-3})


ARMS = (
    _arm("full", "the full source"),
    _arm("lm", "classes by label mapping (DP4TL)"),
    _arm("fm", "groups by feature mapping (DP4TL without labels)"),
    _arm("random", "random classes"),
    _arm("scratch", "no pre-training"),
    _arm("told", "classes of the target's own style first (bound)"),
)
_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
RECIPE = Recipe(
    slug="dp4tl",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        Inequality("60 % pruned: nothing is lost", "lm.at60", "full.at60", margin=0.5, demand="not worse", unit="points"),
        Inequality("60 % pruned: beats random classes", "lm.at60", "random.at60", margin=1.5, unit="points"),
        Inequality("80 % pruned: beats random classes", "lm.at80", "random.at80", margin=1.5, unit="points"),
        Inequality("60 % pruned, no labels: beats random classes", "fm.at60", "random.at60", unit="points"),
        Inequality("60 % pruned: half the time", "full.seconds60", "lm.seconds60", demand="at least", left_factor=0.5, unit="s"),
        Inequality(
            "80 % pruned: nothing is lost", "lm.at80", "full.at80", margin=0.5, demand="not worse", primary=False, unit="points"
        ),
        Inequality("pre-training helps at all", "full.at60", "scratch.at60", margin=1.5, primary=False, unit="points"),
    ),
    headroom=(
        Headroom("full.at60", "scratch.at60", margin=0.5, inequalities=("60 % pruned: nothing is lost",), unit="points"),
        Headroom("told.at60", "random.at60", margin=1.5, inequalities=("60 % pruned: beats random classes",), unit="points"),
        Headroom("told.at80", "random.at80", margin=1.5, inequalities=("80 % pruned: beats random classes",), unit="points"),
        Headroom(
            "told.at60", "random.at60", margin=0.0, inequalities=("60 % pruned, no labels: beats random classes",), unit="points"
        ),
    ),
    pilot=Pilot(grids={arm.name: {"rate": _RATES} for arm in ARMS}, score=("at60", "at80")),
    equal_budget=(EqualBudget(("labels",)), EqualBudget(("steps", "samples"), arms=("random", "told"))),
    measures_time=True,
    minutes=60,
    notes=(
        "Feature mapping chooses without labels; the pre-training that follows has the labels of what was chosen, as in all arms.",
        "Generated letters in six drawing styles in place of ImageNet; full fine-tuning only.",
    ),
)
