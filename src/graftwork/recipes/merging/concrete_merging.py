"""Reproduction of concrete merging.

The paper's result tables give, for CLIP ViT-B/32 on eight picture tasks, 70.2 for task arithmetic at its best factor, 72.8 for TIES
and 77.3 for a concrete mask with task arithmetic; 80.9 for layer-wise AdaMerging and 83.4 with a concrete mask.

Our setting: MiniLM and six short text tasks (:mod:`graftwork.recipes.merging.text_experts`), the upper three layers tuned for each
task, heads frozen. Masks and coefficients learn on the validation rows, of which they see the task and not the label. Task
arithmetic has the factor 0.3; with the factor tuned on validation labels it and TIES are reported beside the claim, because a
rescaled mask could act as nothing but a better factor. AdaMerging gets as many steps and rows as a concrete mask with AdaMerging takes
in all (one for the coefficients and one for the logits in each step, then the coefficients alone). The control puts the learned logits
in a random order within each tensor. The tuned models themselves bound what can be won. One arm is the plan of the card, on two of the
tasks. About 7 minutes of one core a seed.

The pilot (``--pilot``, seeds 100 and 101) chooses the learning rate of the logits, of AdaMerging's coefficients, and of the
coefficients under a mask by validation accuracy, four values each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import ModelMerger
from graftwork.methods.merging.adamerging import AdaMerging, AdaMergingConfig
from graftwork.methods.merging.concrete_merging import ConcreteConfig, ConcreteMerging
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.methods.merging.ties import TiesConfig, TiesMerger
from graftwork.recipes.merging.text_experts import (
    TASKS,
    State,
    base_state,
    load_experts,
    make_experts,
    merge_context,
    merge_model,
    points,
    text_tasks,
)

__all__ = ["ARMS", "RECIPE", "run_arm"]

TUNING_STEPS, TUNING_RATE = 100, 2e-4
MASK_STEPS, JOINT_STEPS, ADAPT_STEPS, BATCH = 150, 60, 60, 8
"""Steps of the logits alone, with AdaMerging, of the coefficients after that, and rows of each task a step."""
SCALES = tuple(round(0.1 * step, 1) for step in range(1, 11))
PLAN_TASKS = ("emoji", "airports")
LABELS = Access(source_labels=True)


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Merge the tuned models of this seed; measure mean accuracies over tasks, in percent."""
    most, tasks = context.choose(full=(0, TASKS), smoke=(6, TASKS[:2]))
    if arm.settings["method"] == "plan":
        return _plan(seed, most, context)
    data = context.guard(text_tasks(seed, tasks=tasks, most=most))
    steps = context.choose(full=TUNING_STEPS, smoke=1)

    def build(folder: Any) -> None:
        make_experts(folder, data, seed, context, steps=steps, rate=TUNING_RATE)

    experts = load_experts(context.once("experts", build), data.visible.tasks)
    method = str(arm.settings["method"])
    extra: dict[str, float] = {}
    if method == "experts":
        merged: Mapping[str, Any] | None = None
    elif method in ("task-arithmetic", "ties"):
        merged, extra = _by_rule(arm, experts, data, context)
    else:
        merged, extra = _learned(arm, experts, data, seed, context)
    models = {name: state if merged is None else {**state, **merged} for name, state in experts.items()}
    test = points(data, "test", models)
    validation = float(np.mean(list(points(data, "val", models).values())))
    return {"accuracy": float(np.mean(list(test.values()))), "validation": validation, "task": test, **extra}


def _by_rule(arm: Arm, experts: Mapping[str, State], data: GuardedSuite, context: ArmContext) -> tuple[State, dict[str, float]]:
    """Merge by a rule without learning, with the factor given or the best on labelled validation rows."""
    base = base_state()
    changed = [{name: state[name] for name in base} for state in experts.values()]
    scales = tuple(arm.settings["scales"])
    scales = context.choose(full=scales, smoke=scales[:2])
    best: tuple[float, float, State] | None = None
    for scale in scales:
        merger: Merger = TaskArithmeticMerger(scaling=scale)
        if arm.settings["method"] == "ties":
            merger = TiesMerger(TiesConfig(scaling=scale))
        merged = merge_arrays(base, changed, merger)
        score = 0.0
        if len(scales) > 1:
            context.count("trials")
            found = points(data, "val", {name: {**state, **merged} for name, state in experts.items()})
            score = float(np.mean(list(found.values())))
        if best is None or score > best[0]:
            best = (score, scale, merged)
    assert best is not None
    return best[2], {"scale": best[1]}


def _learned(
    arm: Arm, experts: Mapping[str, State], data: GuardedSuite, seed: int, context: ArmContext
) -> tuple[State, dict[str, float]]:
    """Learn masks or coefficients on validation rows without their labels."""
    visible, rate = data.visible, float(arm.settings["rate"])
    counts = context.choose(full=(MASK_STEPS, JOINT_STEPS, ADAPT_STEPS), smoke=(1, 1, 1))
    merger: ModelMerger
    if arm.settings["method"] == "adamerging":
        # As many as a mask with AdaMerging takes in all.
        merger = AdaMerging(AdaMergingConfig(steps=2 * counts[1] + counts[2], learning_rate=rate, batch_size=BATCH))
    elif arm.settings["method"] == "concrete-adamerging":
        merger = ConcreteMerging(
            ConcreteConfig(
                rule="adamerging",
                steps=counts[1],
                learning_rate=float(arm.settings["logit_rate"]),
                adapt_steps=counts[2],
                adapt_rate=rate,
                batch_size=BATCH,
            )
        )
    else:
        shuffle = arm.settings["method"] == "shuffled"
        merger = ConcreteMerging(ConcreteConfig(steps=counts[0], learning_rate=rate, batch_size=BATCH, shuffle=shuffle))
    spent = merge_context(visible, visible.splits["val"], seed, labels=False)
    models = [merge_model(visible.task(name), state, name) for name, state in experts.items()]
    merged = merger.merge(merge_model(None, base_state(), "MiniLM"), models, spent)
    context.count("steps", int(spent.costs["steps"]))
    context.count("samples", int(spent.costs["samples"]))
    kept = 100.0 * float(merger.kept) if isinstance(merger, ConcreteMerging) and merger.kept is not None else None
    return dict(merged), {} if kept is None else {"kept": kept}


def _plan(seed: int, most: int, context: ArmContext) -> Measurements:
    """Train and merge as ``graftwork fit`` does, on two of the tasks."""
    data = context.guard(text_tasks(seed, tasks=PLAN_TASKS, most=most))
    plan = card_plan("concrete-merging")
    if context.smoke:
        plan = dataclasses.replace(plan, stages=_short(plan.stages))
    learner = context.train(plan, data, steps=context.choose(full=20, smoke=1), overrides={"batch_size": 16}, backbone="minilm")
    scores = data.score("test", context.predict(learner, data))
    return {"accuracy": 100.0 * float(np.mean([scores[name]["accuracy"] for name in PLAN_TASKS]))}


def _short(stages: Any) -> Any:
    """Return the stages with one step of the mask."""
    *first, last = stages
    part = last.model_merger
    return (*first, dataclasses.replace(last, model_merger=dataclasses.replace(part, settings={**part.settings, "steps": 1})))


def _claim(name: str, left: str, right: str, margin: float = 0.0, **options: Any) -> Inequality:
    return Inequality(name, f"{left}.accuracy", f"{right}.accuracy", margin=margin, unit="points", **options)


ARMS = (
    Arm("arithmetic", "task arithmetic, factor 0.3", LABELS, {"method": "task-arithmetic", "scales": [0.3]}),
    Arm("concrete", "concrete mask, task arithmetic", LABELS, {"method": "concrete", "rate": 0.1}),
    Arm("shuffled", "the same logits in a random order", LABELS, {"method": "shuffled", "rate": 0.1}),
    Arm("adamerging", "layer-wise AdaMerging", LABELS, {"method": "adamerging", "rate": 1e-2}),
    Arm(
        "concrete-adamerging",
        "concrete mask, layer-wise AdaMerging",
        LABELS,
        {"method": "concrete-adamerging", "rate": 1e-2, "logit_rate": 0.1},
    ),
    Arm("arithmetic-tuned", "task arithmetic, factor tuned", LABELS, {"method": "task-arithmetic", "scales": list(SCALES)}),
    Arm("ties-tuned", "TIES, factor tuned", LABELS, {"method": "ties", "scales": list(SCALES)}),
    Arm("experts", "the tuned models themselves (bound)", LABELS, {"method": "experts"}),
    Arm("plan", "the plan of fit: two tasks, merged with a mask", LABELS, {"method": "plan"}),
)
MERGED = tuple(arm.name for arm in ARMS if arm.name != "plan")
_MASK, _ADAPTIVE = "beats task arithmetic", "improves AdaMerging"

RECIPE = Recipe(
    slug="concrete-merging",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        _claim(_MASK, "concrete", "arithmetic", 2.0, min_sign_seeds=16),
        _claim(_ADAPTIVE, "concrete-adamerging", "adamerging", 0.5, min_sign_seeds=16),
        _claim("a random mask gains nothing", "arithmetic", "shuffled", 1.0, demand="not worse"),
        _claim("beats task arithmetic with a tuned factor", "concrete", "arithmetic-tuned", primary=False),
        _claim("beats TIES with a tuned factor", "concrete", "ties-tuned", primary=False),
        _claim("which entries are kept matters", "concrete", "shuffled", primary=False),
    ),
    headroom=(
        Headroom("experts.accuracy", "arithmetic.accuracy", margin=2.0, inequalities=(_MASK,), unit="points"),
        Headroom("experts.accuracy", "adamerging.accuracy", margin=0.5, inequalities=(_ADAPTIVE,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "concrete": {"rate": (0.01, 0.03, 0.1, 0.3)},
            "adamerging": {"rate": (1e-3, 3e-3, 1e-2, 3e-2)},
            "concrete-adamerging": {"rate": (1e-3, 3e-3, 1e-2, 3e-2)},
        },
        score=("validation",),
        follows={"shuffled": "concrete"},
        fixed={
            "arithmetic": "the claim is about its usual factor",
            "arithmetic-tuned": "tunes its factor on every seed",
            "ties-tuned": "tunes its factor on every seed",
            "experts": "a bound, nothing of which is merged",
            "plan": "as the card has it",
        },
    ),
    equal_budget=(
        EqualBudget(("labels",), MERGED),
        EqualBudget(("steps", "samples"), ("concrete", "shuffled")),
        EqualBudget(("steps", "samples"), ("adamerging", "concrete-adamerging")),
        EqualBudget(("trials",), ("arithmetic-tuned", "ties-tuned")),
    ),
    minutes=60,
    notes=(
        "MiniLM and six short text tasks in place of CLIP ViT-B/32 and eight picture tasks; the upper three layers are tuned and merged.",
        "Masks learn on validation rows in place of test rows; their labels are replaced before the merger sees them.",
    ),
)
