"""Reproduction of dynamic logits fusion.

The paper reports that fusing tuned LLaMA-2 models of 7B into one of 13B closes 96.4 % of the gap to tuning the large one for single
tasks and 86.3 % with several, better than a fixed coefficient.

Our setting: a choice among names is a text of one token. The vocabulary are the names of the classes of four short text tasks (29 of
them, in plain English); the logits of a text are twenty times the cosines between its embedding and those of the names. The large
model is MiniLM, the small one its first three layers: both answer without having seen a label, the large one better. Experts are the
small model tuned for one task each (two layers learn); the bound is the large one tuned alike (its upper three layers). Fusion takes
the large one as it is. With one expert the task of a text is known, as in the paper's single-task setting; with all four it is not.
Measured is the mean accuracy over the tasks, of all 29 names.

The pilot (``--pilot``, seeds 100 and 101) chooses a learning rate of four for the experts and for the tuned large model by validation
accuracy. The tuned fixed coefficient is the best of twenty on the validation rows of each seed and task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graftwork.claims.experiment import (
    Access,
    Arm,
    ArmContext,
    EqualBudget,
    Headroom,
    Inequality,
    Measurements,
    Pilot,
    Recipe,
    SeedMeasurements,
)
from graftwork.core.input_spec import text_input
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.interfaces.train_step import TrainStep
from graftwork.methods.merging.logits_fusion import fused_logits, fusion_coefficients
from graftwork.nn.backbones.transformers_bridge import prepare_suite
from graftwork.recipes.merging.minilm_layers import MiniLMLayers, states_before
from graftwork.recipes.merging.text_experts import labelled, text_tasks
from graftwork.training.config import LoopConfig
from graftwork.training.loop import Loop

__all__ = ["ARMS", "RECIPE", "derive", "run_arm", "vocabulary_of"]

Array = NDArray[Any]
TASKS = ("emoji", "languages", "characters", "nouns")
LAYERS: Mapping[str, tuple[int, int]] = {"large": (3, 6), "small": (1, 3)}
"""Layers of MiniLM that learn where a model is tuned; what lies below never does, what lies above is not there."""
STEPS, BATCH, SHARPNESS = 120, 24, 20.0
GRID = tuple(round(0.1 * step, 1) for step in range(1, 21))


class _Texts:
    """Token states of the texts and of the names, below the layers of a model."""

    def __init__(self, texts: Suite, names: Suite, first: int, folder: Path) -> None:
        self.texts = np.load(folder / f"texts-{first}.npy", mmap_mode="r", allow_pickle=False)
        self.names = np.load(folder / f"names-{first}.npy", allow_pickle=False)
        self.mask, self.name_mask = texts.inputs["attention_mask"], names.inputs["attention_mask"]

    def logits(self, model: MiniLMLayers, rows: Array) -> Tensor:
        """Return the logits of all names, ``[len(rows), V]``."""
        return SHARPNESS * model.embed(self.texts[rows], self.mask[rows]) @ model.embed(self.names, self.name_mask).T


def vocabulary_of(suite: Suite) -> tuple[list[str], dict[str, Array]]:
    """Return the names of all classes, and for each task the place of its classes among them."""
    names = sorted({name for task in suite.tasks for name in task.classes})
    return names, {task.name: np.array([names.index(name) for name in task.classes]) for task in suite.tasks}


class NamingStep(TrainStep["_Rows"]):
    """Cross-entropy of one task's texts over all names.

    Args:
        model: The layers that learn.
        texts: States below them.
        targets: Place of the right name of each row, ``[N]``.
    """

    loss_names = ("name",)

    def __init__(self, model: MiniLMLayers, texts: _Texts, targets: Array) -> None:
        self.model: MiniLMLayers = model
        self.texts, self.targets = texts, targets

    def backward(self, batch: _Rows, step: int) -> Tensor:
        """Write gradients; return the loss ``[1]``."""
        loss = F.cross_entropy(self.texts.logits(self.model, batch.rows), torch.from_numpy(self.targets[batch.rows]))
        loss.backward()
        return loss.detach().reshape(1)


class _Rows:
    def __init__(self, rows: Array) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)


class _Batches:
    def __init__(self, rows: Array, seed: int) -> None:
        self.rows, self.seed = rows, seed

    def batch(self, step: int) -> _Rows:
        random = np.random.default_rng([self.seed, step])
        return _Rows(random.choice(self.rows, min(BATCH, len(self.rows)), replace=False))


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Answer the test rows of all tasks; measure the mean accuracy in percent."""
    tasks, most = context.choose(full=(TASKS, 0), smoke=(TASKS[:2], 6))
    suite = text_tasks(seed, tasks=tasks, most=most)
    data = context.guard(suite)
    kind, rate = str(arm.settings["kind"]), float(arm.settings["rate"])
    answered = _answering(suite, data.visible, seed, context)
    _, places = vocabulary_of(suite)
    found: dict[str, dict[str, float]] = {"test": {}, "val": {}}
    coefficients: list[float] = []
    for task in tasks:
        large = answered("large", "", 0.0)
        if kind == "large-tuned":
            logits = answered("large", task, rate)
        elif kind == "large":
            logits = large
        else:
            small = answered("small", "", 0.0)
            known = tasks if kind.endswith("-all") else (task,)
            experts = np.stack([answered("small", name, rate) for name in known])
            logits = _fused(kind, large, small, experts, suite, task, places[task], coefficients)
        for split, scores in found.items():
            # Test labels score alone.
            rows = labelled(suite, split, task)
            right = logits[rows].argmax(axis=1) == places[task][suite.targets[task][rows]]
            scores[task] = 100.0 * float(right.mean())
    means = {split: float(np.mean(list(scores.values()))) for split, scores in found.items()}
    more = {"coefficient": float(np.mean(coefficients))} if coefficients else {}
    return {"accuracy": means["test"], "validation": means["val"], "task": found["test"], **more}


def _fused(
    kind: str, large: Array, small: Array, experts: Array, suite: Suite, task: str, places: Array, used: list[float]
) -> Array:
    """Return the logits of an arm for all rows, ``[N, V]``; coefficients are added to ``used``."""
    if kind == "expert":
        return np.asarray(experts[0])
    big, base, tuned = (torch.from_numpy(np.array(part)) for part in (large, small, experts))
    if kind.startswith("dynamic"):
        alpha = fusion_coefficients(big, base, tuned)
        used.append(float(alpha.sum(dim=1).mean()))
    else:
        value = {"fixed": 1.0, "average-all": 1.0 / len(tuned)}.get(kind, 0.0)
        if kind == "fixed-tuned":
            rows = labelled(suite, "val", task)
            wanted = places[suite.targets[task][rows]]
            moved = [large[rows] + scale * (experts[0] - small)[rows] for scale in GRID]
            value = GRID[int(np.argmax([(logits.argmax(axis=1) == wanted).mean() for logits in moved]))]
        used.append(value)
        alpha = torch.full((len(big), len(tuned)), value, dtype=torch.float64)
    return fused_logits(big, tuned - base, alpha).numpy()


def _answering(suite: Suite, visible: Suite, seed: int, context: ArmContext) -> Callable[[str, str, float], Array]:
    """Return what gives the logits of all texts of a model, tuned for a task or (without one) as it is; computed once a seed."""
    names = _named(vocabulary_of(suite)[0])

    def prepare(folder: Path) -> None:
        for first, _ in LAYERS.values():
            np.save(folder / f"texts-{first}.npy", states_before(first, suite))
            np.save(folder / f"names-{first}.npy", states_before(first, names))

    states = context.once("states", prepare)

    def answered(model: str, task: str, rate: float) -> Array:
        first, last = LAYERS[model]
        texts = _Texts(suite, names, first, states)

        def build(folder: Path) -> None:
            made = MiniLMLayers(first, last)
            if task:
                _tune(made, texts, visible, task, rate, seed, context)
            with torch.inference_mode():
                parts = [texts.logits(made.eval(), rows).numpy() for rows in np.array_split(np.arange(len(suite)), 20)]
            np.save(folder / "logits.npy", np.concatenate(parts))

        found: Array = np.load(context.once(f"{model}-{task or 'base'}-{rate:g}", build) / "logits.npy", allow_pickle=False)
        return found

    return answered


def _tune(model: MiniLMLayers, texts: _Texts, visible: Suite, task: str, rate: float, seed: int, context: ArmContext) -> None:
    seeds = Seeds(seed).child(task)
    seeds.set_global("init")
    places = vocabulary_of(visible)[1][task]
    steps = context.choose(full=STEPS, smoke=1)
    loop = Loop(
        NamingStep(model, texts, places[np.maximum(visible.targets[task], 0)]),
        _Batches(labelled(visible, "train", task), seeds.integer("batches") % 2**31),
        config=LoopConfig(max_steps=steps, learning_rate=rate, grad_clip=1.0),
        seeds=seeds,
        callbacks=[context.budget_callback()],
    )
    loop.train(steps, lambda done: context.progress(done / steps, f"{task}, step {done}"))


def _named(names: list[str]) -> Suite:
    """Return the names as a suite of texts in MiniLM's tokens."""
    suite = Suite.of_arrays(
        name="names",
        input_specs=text_input(2, 1),
        tasks=[TaskSpec(name="place", kind="multiclass", size=len(names))],
        inputs={"tokens": np.ones((len(names), 1), np.int64)},
        targets={"place": np.arange(len(names))},
        splits={"train": np.arange(len(names))},
        raw={"text": np.array(names, dtype=object)},
    )
    return prepare_suite(suite, "minilm")


def derive(results: SeedMeasurements) -> dict[str, Measurements]:
    """Add which share of the gap between the large model as it is and tuned an arm closes, in percent."""
    low, high = results["large"]["accuracy"], results["large-tuned"]["accuracy"]
    gap = max(high - low, 1e-6)
    return {
        name: {"closed": 100.0 * (results[name]["accuracy"] - low) / gap} for name in ("dynamic", "dynamic-all", "fixed-tuned")
    }


_LABELS = Access(source_labels=True)


def _arm(name: str, title: str) -> Arm:
    return Arm(name, title, _LABELS, {"kind": name, "rate": 1e-4})


ARMS = (
    _arm("large", "the large model as it is"),
    _arm("expert", "the small expert of the task"),
    _arm("fixed", "fusion with a coefficient of 1"),
    _arm("fixed-tuned", "fusion with the best of twenty coefficients"),
    _arm("dynamic", "dynamic fusion, one expert"),
    _arm("average-all", "all experts, shifts averaged"),
    _arm("dynamic-all", "all experts, dynamic fusion"),
    _arm("large-tuned", "the large model tuned for the task (bound)"),
)
_RATES = (3e-5, 1e-4, 3e-4, 1e-3)
_FIXED, _EXPERT, _CLOSED, _ALL = (
    "beats a coefficient of 1",
    "beats the small expert",
    "closes 60 % of the gap",
    "with all experts it beats averaged shifts",
)


def _claim(name: str, left: str, right: str, margin: float, **options: Any) -> Inequality:
    return Inequality(name, f"{left}.accuracy", f"{right}.accuracy", margin=margin, unit="points", **options)


RECIPE = Recipe(
    slug="logits-fusion",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        _claim(_FIXED, "dynamic", "fixed", 1.0),
        _claim("is near the best fixed coefficient", "dynamic", "fixed-tuned", 0.5, demand="not worse"),
        Inequality(_CLOSED, "dynamic.closed", 60.0, demand="at least", unit="%"),
        _claim(_ALL, "dynamic-all", "average-all", 2.0),
        _claim(_EXPERT, "dynamic", "expert", 0.0),
        _claim("with all experts it beats the large model", "dynamic-all", "large", 0.0, primary=False),
    ),
    headroom=(
        Headroom("large-tuned.accuracy", "fixed.accuracy", margin=1.0, inequalities=(_FIXED,), unit="points"),
        Headroom("large-tuned.accuracy", "expert.accuracy", margin=1.0, inequalities=(_EXPERT,), unit="points"),
        Headroom("large-tuned.accuracy", "large.accuracy", margin=5.0, inequalities=(_CLOSED,), unit="points"),
        Headroom("large-tuned.accuracy", "average-all.accuracy", margin=2.0, inequalities=(_ALL,), unit="points"),
    ),
    pilot=Pilot(
        grids={"expert": {"rate": _RATES}, "large-tuned": {"rate": _RATES}},
        follows=dict.fromkeys(("fixed", "fixed-tuned", "dynamic", "average-all", "dynamic-all"), "expert"),
        fixed={"large": "answers as it is"},
        score=("validation",),
    ),
    equal_budget=(
        EqualBudget(("steps", "samples"), ("expert", "fixed", "fixed-tuned", "dynamic")),
        EqualBudget(("steps", "samples"), ("average-all", "dynamic-all")),
    ),
    minutes=40,
    notes=(
        "MiniLM and its first three layers, which name the kind of a short text, in place of language models of 13B and 7B: texts of "
        "one token.",
        "The tuned fixed coefficient reads validation labels, which dynamic fusion does without.",
    ),
)
