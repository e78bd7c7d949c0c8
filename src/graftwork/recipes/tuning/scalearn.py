"""Reproduction of ScaLearn.

The paper reports, for RoBERTa-base on GLUE, averages of 83.83 for single adapters, 85.01 for AdapterFusion, 85.36 for ScaLearn and
85.14 for ScaLearnUniform++ with 8 transfer parameters (official tables; not verified here).

Our setting: MiniLM and eight short text tasks from installed packages (kinds of emoji names in three languages, languages, names of
characters, definitions, nouns, airports), which partly overlap: three ask for the same kinds in other languages, two for the kinds of
the same things. Stage 1: an adapter with a bottleneck of 24 behind each of the six blocks (reduction 16), for each task alone with all
its training texts. Each task in turn is then the target with 150 labelled texts: its own adapter is trained on these, and stage 2
learns, with a new head, how to combine it with the seven adapters of the others. AdamW, linear schedule, the weights of the best
validation score count. Arms: the target's adapter alone, ScaLearn, ScaLearnUniform++, AdapterFusion, and as the bound the adapter
that learned from all training texts of the target. Every arm is a plan; ScaLearn's is that of the card. Accuracies in percent, means
over the eight targets. Transfer parameters are counted without heads.

The pilot chooses each arm's rate of stage 2 from four on seeds 100 and 101 by validation accuracy; the adapters of stage 1 learn at a
rate of 1e-3 for all arms. The bound follows the single adapter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.plan import Plan
from graftwork.data.samples import only_split_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.short_texts import TEXT_TASKS, short_texts
from graftwork.interfaces.learner import Learner
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "adapter_plan", "few_labels", "run_arm", "transfer_plan"]

BACKBONE = "minilm"
TASKS = tuple(TEXT_TASKS)
BOTTLENECK, FEW = 24, 150
STEPS, SOURCE_STEPS, BATCH = 150, 200, 16
SOURCE_RATE = 1e-3
"""Of the adapters of stage 1, the same for all arms."""
LABELS = Access(source_labels=True)
TRAINING: Mapping[str, Any] = {"batch_size": BATCH, "optimizer": "adamw", "schedule": "linear", "ema_decay": 0.0}


def adapter_plan() -> Plan:
    """Return the plan of stage 1 and of the single adapter: that of the card with plain adapters."""
    plan = card_plan("scalearn")
    return plan.with_train(tuning=Component("graftwork.methods.tuning.adapter:Adapters", {"bottleneck": BOTTLENECK}))


def transfer_plan(name: str, files: list[Path]) -> Plan:
    """Return a plan of the card that combines adapters of these files."""
    plan = card_plan("scalearn", name)
    assert plan.train.tuning is not None
    settings = {**plan.train.tuning.settings, "deltas": [str(file) for file in files]}
    return plan.with_train(tuning=Component(plan.train.tuning.path, settings))


def few_labels(suite: Suite, counts: Mapping[str, int], seed: int) -> Suite:
    """Return a suite with at most so many rows of each named split, drawn by the seed; the other rows are in no split."""
    random = np.random.default_rng(seed)
    drawn = {name: np.sort(random.permutation(suite.splits[name])[:count]) for name, count in counts.items()}
    return replace(suite, splits={**suite.splits, **drawn})


def _world(task: str, seed: int, context: ArmContext, *, few: bool) -> Suite:
    counts: dict[str, int] = context.choose(full={"train": FEW} if few else {}, smoke={"train": 8, "val": 4, "test": 4})
    return only_split_rows(few_labels(short_texts(task, seed=seed), counts, seed))


def _train(plan: Plan, suite: Suite, rate: float, steps: int, context: ArmContext, name: str) -> Learner:
    data = context.guard(suite)
    seed = context.seeds.integer(name)
    overrides = {**TRAINING, "learning_rate": rate}
    return context.train(plan, data, steps=steps, seed=seed, overrides=overrides, backbone=BACKBONE)


def _adapters(folder: Path, seed: int, context: ArmContext) -> None:
    """Train and keep an adapter for each task with all texts (``all-TASK``), and one with few labels (``own-TASK``)."""
    steps = context.choose(full=SOURCE_STEPS, smoke=1)
    for task in _tasks(context):
        for kind in ("all", "own"):
            suite = _world(task, seed, context, few=kind == "own")
            learner = _train(adapter_plan(), suite, SOURCE_RATE, steps, context, f"{kind}/{task}")
            assert isinstance(learner, NeuralLearner)
            (delta,) = learner.deltas().values()
            delta.save(folder / f"{kind}-{task}.safetensors")


def _tasks(context: ArmContext) -> tuple[str, ...]:
    return context.choose(full=TASKS, smoke=TASKS[:2])


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune for each target; measure accuracies in percent, their mean, and numbers that learn without heads."""
    kind, rate = str(arm.settings["kind"]), float(arm.settings["rate"])
    is_transfer = kind not in ("single", "bound")
    folder = context.once("adapters", lambda path: _adapters(path, seed, context)) if is_transfer else Path()
    steps, targets = context.choose(full=STEPS, smoke=2), _tasks(context)
    accuracy: dict[str, float] = {}
    validation: list[float] = []
    learned = 0
    for number, target in enumerate(targets):
        suite = _world(target, seed, context, few=kind != "bound")
        files = [folder / f"{'own' if task == target else 'all'}-{task}.safetensors" for task in targets]
        plan = transfer_plan(kind, files) if is_transfer else adapter_plan()
        learner = _train(plan, suite, rate, steps, context, f"target/{target}")
        assert isinstance(learner, NeuralLearner)
        data = context.guard(suite)
        accuracy[target] = 100.0 * data.score("test", context.predict(learner, data))["kind"]["accuracy"]
        validation.append(100.0 * data.score("val", context.predict(learner, data, "val"))["kind"]["accuracy"])
        # What learns and is no head is the tuner's.
        learned = sum(item.numel() for item in learner.model.shared_parameters() if item.requires_grad)
        context.progress((number + 1) / len(targets), target)
    mean = float(np.mean(list(accuracy.values())))
    return {"accuracy": accuracy, "mean": mean, "validation": float(np.mean(validation)), "learned": learned}


def _arm(kind: str, title: str, rate: float, name: str = "") -> Arm:
    return Arm(name or kind, title, LABELS, {"kind": kind, "rate": rate})


ARMS = (
    _arm("single", "the target's adapter alone", 1e-3),
    _arm("scalearn", "ScaLearn: the plan on the card", 6e-3),
    _arm("scalearn-uniform-plus", "ScaLearnUniform++: one number a task", 6e-3),
    _arm("adapter-fusion", "AdapterFusion", 3e-4),
    _arm("bound", "an adapter that learned from all texts of the target", 1e-3),
)
_FUSION = "reaches AdapterFusion"
_RATES = (2e-3, 6e-3, 2e-2, 6e-2)

RECIPE = Recipe(
    slug="scalearn",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality("beats a single adapter", "scalearn.mean", "single.mean", margin=1.0, unit="points"),
        Inequality(_FUSION, "scalearn.mean", "adapter-fusion.mean", margin=0.2, demand="not worse", unit="points"),
        # A hundredth of the attention's numbers must be more than the scales'.
        Inequality(
            "with less than 1 % of its transfer parameters",
            "adapter-fusion.learned",
            "scalearn.learned",
            demand="at least",
            left_factor=0.01,
        ),
        Inequality("one number a task beats a single adapter", "scalearn-uniform-plus.mean", "single.mean", unit="points"),
    ),
    headroom=(
        Headroom(
            "bound.mean",
            "single.mean",
            margin=1.0,
            inequalities=("beats a single adapter", "one number a task beats a single adapter"),
            unit="points",
        ),
        Headroom("bound.mean", "single.mean", margin=0.2, inequalities=(_FUSION,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "single": {"rate": (3e-4, 1e-3, 3e-3, 1e-2)},
            "scalearn": {"rate": _RATES},
            "scalearn-uniform-plus": {"rate": _RATES},
            "adapter-fusion": {"rate": (3e-5, 1e-4, 3e-4, 1e-3)},
        },
        score=("validation",),
        follows={"bound": "single"},
    ),
    equal_budget=(
        EqualBudget(("steps", "samples", "labels"), arms=("scalearn", "scalearn-uniform-plus", "adapter-fusion")),
        EqualBudget(("steps",), arms=("single", "bound")),
    ),
    minutes=120,
    notes=(
        "MiniLM and eight short text tasks in place of RoBERTa-base and GLUE; targets have 150 labels, sources all of theirs.",
        "Arms that combine adapters have spent the steps and labels of the sources besides their own.",
    ),
)
