"""Reproduction of VL-Adapter.

The paper reports, for four image-text tasks, averages of about 77.4 for a single adapter shared by all tasks with 4.18 % of the
parameters against about 77.6 for full fine-tuning, about as much for an adapter a task with 12 %, HyperFormer and Compacter lower, and
prompt tuning far lower (averages remembered, not verified).

Our setting: MiniLM and four short text tasks (kinds of emoji, languages, kinds of things from their definitions, airports by time
zone), each text with the name of its task before it, batches mixed from all tasks, a head a task. All arms but full tuning leave the
backbone frozen and train its norms (the paper's setting; prompts and heads alone too). Every arm is a plan; the adapters' are those on
the card, with a reduction of 8. AdamW, cosine schedule, 400 steps of 16 texts; the weights of the best validation loss count.
Accuracies in percent, means over the four tasks. Parameters are counted without heads, against the whole backbone.

The pilot chooses each arm's rate from four on seeds 100 and 101 by validation accuracy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.plan import Plan
from graftwork.data.suites.short_text_mix import short_text_mix
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "derive", "make_plan", "run_arm"]

BACKBONE = "minilm"
TASKS = ("emoji", "languages", "definitions", "airports")
STEPS, BATCH = 400, 16
LABELS = Access(source_labels=True)
_TUNERS: dict[str, Component] = {
    "full": Component("graftwork.methods.tuning.full:FullTuning"),
    "prompt": Component("graftwork.methods.tuning.prompt:PromptTuning", {"num_tokens": 8}),
    "lora": Component("graftwork.methods.tuning.lora:LoRA", {"r": 16}),
    "norms": Component("graftwork.methods.tuning.norm_only:NormOnly"),
}


def make_plan(name: str) -> Plan:
    """Return the plan of an arm: one of the card's, or a shared trunk with another tuner."""
    if name not in _TUNERS:
        return card_plan("vl-adapter", name)
    plan = card_plan("vl-adapter")
    trunk = Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")
    return plan.with_train(sharing=trunk, tuning=_TUNERS[name])


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train once for all tasks; measure accuracies in percent, their mean, and what share of the backbone learns."""
    sizes: dict[str, Any] = context.choose(full={}, smoke={"num_train": 4, "num_test": 2})
    # Few texts, and short ones.
    tasks, batch = context.choose(full=(TASKS, BATCH), smoke=(TASKS[:2], 4))
    data = context.guard(short_text_mix(tasks, seed=seed, prefix=True, **sizes))
    learner = context.train(
        make_plan(str(arm.settings["plan"])),
        data,
        steps=context.choose(full=STEPS, smoke=1),
        overrides={"batch_size": batch, "learning_rate": float(arm.settings["rate"])},
        backbone=BACKBONE,
    )
    assert isinstance(learner, NeuralLearner)
    found = {}
    for split in ("val", "test"):
        scores = data.score(split, context.predict(learner, data, split))
        found[split] = {task: 100.0 * scores[task]["accuracy"] for task in tasks}
    # Names begin with `heads` in both kinds of model.
    learned = sum(
        item.numel() for name, item in learner.model.named_parameters() if item.requires_grad and not name.startswith("heads.")
    )
    return {
        "accuracy": found["test"],
        "mean": float(np.mean(list(found["test"].values()))),
        "validation": float(np.mean(list(found["val"].values()))),
        "learned": learned,
    }


def derive(results: SeedMeasurements) -> dict[str, Measurements]:
    """Add what share of the numbers of full tuning each arm learns, in percent."""
    return {arm: {"percent_learned": 100.0 * values["learned"] / results["full"]["learned"]} for arm, values in results.items()}


def _arm(name: str, title: str, plan: str, rate: float) -> Arm:
    return Arm(name, title, LABELS, {"plan": plan, "rate": rate})


ARMS = (
    _arm("single", "one adapter a block for all tasks: the plan on the card", "vl-adapter", 1e-3),
    _arm("half", "adapters that tasks share by half", "vl-adapter-half", 1e-3),
    _arm("multiple", "adapters for each task", "vl-adapter-multiple", 1e-3),
    _arm("compacter", "one adapter of Kronecker products a block", "vl-adapter-compacter", 3e-3),
    _arm("hyperformer", "adapters that a network makes", "vl-adapter-hyperformer", 1e-3),
    _arm("lora", "one LoRA for all tasks", "lora", 1e-3),
    _arm("prompt", "prompts in every block", "prompt", 3e-3),
    _arm("norms", "norms and heads alone", "norms", 3e-3),
    _arm("full", "full fine-tuning", "full", 1e-4),
)
_MIDDLE = (3e-4, 1e-3, 3e-3, 1e-2)
_HIGH = (1e-3, 3e-3, 1e-2, 3e-2)

RECIPE = Recipe(
    slug="vl-adapter",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        Inequality(
            "a single adapter reaches full tuning", "single.mean", "full.mean", margin=1.0, demand="not worse", unit="points"
        ),
        Inequality(
            "a single adapter reaches an adapter a task",
            "single.mean",
            "multiple.mean",
            margin=0.3,
            demand="not worse",
            unit="points",
        ),
        # How many numbers learn follows from the settings: it is reported, and decides nothing.
        Inequality(
            "with less than 6 % of the parameters",
            "full.percent_learned",
            "single.percent_learned",
            demand="at least",
            left_factor=0.06,
            unit="%",
            primary=False,
        ),
        Inequality("a single adapter beats prompts", "single.mean", "prompt.mean", margin=3.0, unit="points"),
        Inequality("half-shared is not worse", "half.mean", "single.mean", margin=1.0, demand="not worse", unit="points"),
        Inequality("half-shared is not better", "single.mean", "half.mean", margin=1.0, demand="not worse", unit="points"),
        Inequality(
            "half-shared has more parameters",
            "half.percent_learned",
            "single.percent_learned",
            demand="at least",
            unit="%",
            primary=False,
        ),
        Inequality(
            "and fewer than all", "multiple.percent_learned", "half.percent_learned", demand="at least", unit="%", primary=False
        ),
        Inequality("a single adapter beats Compacter", "single.mean", "compacter.mean", primary=False, unit="points"),
        Inequality("a single adapter beats HyperFormer", "single.mean", "hyperformer.mean", primary=False, unit="points"),
        Inequality("a single adapter beats LoRA", "single.mean", "lora.mean", primary=False, unit="points"),
    ),
    headroom=(Headroom("full.mean", "norms.mean", margin=1.0, unit="points"),),
    pilot=Pilot(
        grids={
            **{name: {"rate": _MIDDLE} for name in ("single", "half", "multiple", "hyperformer", "lora")},
            **{name: {"rate": _HIGH} for name in ("compacter", "prompt", "norms")},
            "full": {"rate": (3e-5, 1e-4, 3e-4, 1e-3)},
        },
        score=("validation",),
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels")),),
    minutes=90,
    notes=(
        "MiniLM and four short text tasks with heads in place of a generator fed with features of pictures.",
        "Parameters without heads, against all of MiniLM.",
    ),
)
