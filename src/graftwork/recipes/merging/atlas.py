"""Reproduction of aTLAS: learned anisotropic scaling of task vectors.

The paper reports, for CLIP ViT-B/32, about 85 % over eight tasks where task arithmetic with a searched factor gives about 70 %, and
gains over adapters and probes with few shots (from memory, not verified).

Our setting: MiniLM and six short text tasks (:mod:`graftwork.recipes.merging.text_experts`), the upper three layers tuned for each
task, heads frozen.

- Addition: one number for each of 6 models and 48 tensors, learned on the labels of the validation rows; against one number a model
  learned in the same way, and against task arithmetic with the best of ten factors on the same rows. The tuned models themselves
  bound what can be won.
- Four shots: four of the tasks in turn are the target, with four training rows a class and a head from these rows; the coefficients
  of the five other models learn on them. Against the head alone (linear probe), and against tuning the three layers themselves. The
  target's own tuned model, which has seen all rows, is the bound.

One arm is the plan of the card, on two of the tasks. About 6 minutes of one core a seed.

The pilot (``--pilot``, seeds 100 and 101) chooses by validation accuracy a learning rate of each arm (of the probe its penalty), four
values each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.records import TaskSpec
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite
from graftwork.methods.merging.atlas import Atlas, AtlasConfig
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.task_arithmetic import TaskArithmeticMerger
from graftwork.recipes.merging.text_experts import (
    TASKS,
    State,
    base_state,
    fit_head,
    labelled,
    load_experts,
    make_experts,
    merge_context,
    merge_model,
    points,
    text_tasks,
    tune,
)

__all__ = ["ARMS", "RECIPE", "few_shots", "run_arm"]

TUNING_STEPS, TUNING_RATE = 100, 2e-4
STEPS, BATCH = 100, 8
"""Steps of the coefficients, and rows of each task a step."""
SHOTS, FEW_STEPS, FEW_BATCH = 4, 60, 24
TARGETS = ("emoji-german", "languages", "characters", "nouns")
SCALES = tuple(round(0.1 * step, 1) for step in range(1, 11))
PLAN_TASKS = ("emoji", "airports")
LABELS = Access(source_labels=True)


def few_shots(suite: Suite, task: TaskSpec, seed: int) -> NDArray[np.int64]:
    """Return four training rows of each class of a task, the same for all arms."""
    rows = labelled(suite, "train", task.name)
    order = Seeds(seed).numpy(f"shots/{task.name}").permutation(rows)
    kinds = suite.targets[task.name][order]
    return np.sort(np.concatenate([order[kinds == kind][:SHOTS] for kind in range(task.size)]))


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Measure mean accuracies in percent: over all tasks after addition, or over the targets with few shots."""
    most, tasks = context.choose(full=(0, TASKS), smoke=(6, TASKS[:2]))
    method = str(arm.settings["method"])
    if method == "plan":
        return _plan(seed, most, context)
    data = context.guard(text_tasks(seed, tasks=tasks, most=most))

    def build(folder: Any) -> None:
        make_experts(folder, data, seed, context, steps=context.choose(full=TUNING_STEPS, smoke=1), rate=TUNING_RATE)

    experts = load_experts(context.once("experts", build), data.visible.tasks)
    targets = [name for name in TARGETS if name in tasks]
    if arm.settings["part"] == "few":
        models = {name: _few(arm, data.visible.task(name), experts, data.visible, seed, context) for name in targets}
    else:
        merged = {} if method == "experts" else _added(arm, experts, data, seed, context)
        models = {name: {**state, **merged} for name, state in experts.items()}
    test, validation = points(data, "test", models), points(data, "val", models)
    found: dict[str, Any] = {"accuracy": _mean(test), "validation": _mean(validation), "task": test}
    return found if method != "experts" else {**found, "targets": _mean({name: test[name] for name in targets})}


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values())))


def _added(arm: Arm, experts: Mapping[str, State], data: GuardedSuite, seed: int, context: ArmContext) -> State:
    """Return the tuned layers after addition, with factors chosen or learned on labelled validation rows."""
    base, visible = base_state(), data.visible
    if arm.settings["method"] == "task-arithmetic":
        changed = [{name: state[name] for name in base} for state in experts.values()]
        best: tuple[float, State] | None = None
        for scale in context.choose(full=SCALES, smoke=SCALES[:2]):
            context.count("trials")
            merged = merge_arrays(base, changed, TaskArithmeticMerger(scaling=scale))
            score = _mean(points(data, "val", {name: {**state, **merged} for name, state in experts.items()}))
            # The first of equals, the smallest factor.
            if best is None or score > best[0]:
                best = (score, merged)
        assert best is not None
        return best[1]
    config = AtlasConfig(
        grain=arm.settings["grain"],
        steps=context.choose(full=STEPS, smoke=1),
        learning_rate=float(arm.settings["rate"]),
        batch_size=BATCH,
        looks=context.choose(full=4, smoke=1),
    )
    models = [merge_model(visible.task(name), state, name) for name, state in experts.items()]
    return _learned(config, merge_model(None, base, "MiniLM"), models, visible, visible.splits["val"], seed, context)


def _learned(
    config: AtlasConfig,
    base: Any,
    models: Sequence[Any],
    suite: Suite,
    rows: NDArray[np.int64],
    seed: int,
    context: ArmContext,
    tasks: Sequence[TaskSpec] = (),
) -> State:
    spent = merge_context(suite, rows, seed, tasks=tasks)
    merged = Atlas(config).merge(base, models, spent)
    context.count("steps", int(spent.costs["steps"]))
    context.count("samples", int(spent.costs["samples"]))
    return dict(merged)


def _few(arm: Arm, task: TaskSpec, experts: Mapping[str, State], suite: Suite, seed: int, context: ArmContext) -> State:
    """Return layers and head of a target that has few labels; its own tuned model takes no part."""
    rows = few_shots(suite, task, seed)
    method = arm.settings["method"]
    strength = float(arm.settings["strength"]) if method == "probe" else 1.0
    head = fit_head(suite, task, rows, strength=strength)
    base = base_state()
    if method == "probe":
        return {**base, **head}
    steps = context.choose(full=FEW_STEPS, smoke=1)
    rate = float(arm.settings["rate"])
    if method == "tuned":
        seeds = Seeds(seed).child(f"few/{task.name}")
        return tune(suite, task, rows, head, seeds, context, steps=steps, rate=rate, batch=min(FEW_BATCH, len(rows)))
    others = [merge_model(suite.task(name), state, name) for name, state in experts.items() if name != task.name]
    config = AtlasConfig(steps=steps, learning_rate=rate, batch_size=FEW_BATCH, looks=1)
    own = merge_model(task, {**base, **head}, "MiniLM")
    return {**_learned(config, own, others, suite, rows, seed, context, tasks=(task,)), **head}


def _plan(seed: int, most: int, context: ArmContext) -> Measurements:
    """Train and merge as ``graftwork fit`` does, on two of the tasks."""
    data = context.guard(text_tasks(seed, tasks=PLAN_TASKS, most=most))
    plan = card_plan("atlas")
    if context.smoke:
        *first, last = plan.stages
        part = last.model_merger  # type: ignore[attr-defined]
        short = dataclasses.replace(part, settings={**part.settings, "steps": 1})
        plan = dataclasses.replace(plan, stages=(*first, dataclasses.replace(last, model_merger=short)))  # type: ignore[call-arg]
    learner = context.train(plan, data, steps=context.choose(full=20, smoke=1), overrides={"batch_size": 16}, backbone="minilm")
    scores = data.score("test", context.predict(learner, data))
    return {"accuracy": 100.0 * float(np.mean([scores[name]["accuracy"] for name in PLAN_TASKS]))}


def _arm(name: str, title: str, part: str, method: str, **settings: Any) -> Arm:
    return Arm(name, title, LABELS, {"part": part, "method": method, **settings})


def _claim(name: str, left: str, right: str, margin: float, **options: Any) -> Inequality:
    return Inequality(name, f"{left}.accuracy", f"{right}.accuracy", margin=margin, unit="points", **options)


ARMS = (
    _arm("atlas", "one number a model and tensor, learned", "addition", "atlas", grain="tensor", rate=3e-2),
    _arm("isotropic", "one number a model, learned", "addition", "atlas", grain="model", rate=3e-2),
    _arm("arithmetic", "task arithmetic, the best of ten factors", "addition", "task-arithmetic"),
    _arm("experts", "the tuned models themselves (bound)", "addition", "experts"),
    _arm("atlas-few", "four shots: vectors of the other tasks", "few", "atlas", rate=3e-2),
    _arm("probe-few", "four shots: linear probe", "few", "probe", strength=1.0),
    _arm("tuned-few", "four shots: the three layers tuned", "few", "tuned", rate=1e-4),
    _arm("plan", "the plan of fit: two tasks, merged block by block", "addition", "plan"),
)
_BLOCKS, _GRID, _PROBE, _TUNED = (
    "addition: beats one number a model",
    "addition: beats a searched factor",
    "four shots: beats a linear probe",
    "four shots: beats tuning the layers",
)
_LOW, _HIGH = 3e-3, 0.3

RECIPE = Recipe(
    slug="atlas",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    inequalities=(
        _claim(_BLOCKS, "atlas", "isotropic", 2.0),
        _claim(_GRID, "atlas", "arithmetic", 3.0),
        _claim(_PROBE, "atlas-few", "probe-few", 0.0),
        _claim(_TUNED, "atlas-few", "tuned-few", 1.0),
        _claim("addition: one number a model beats a searched factor", "isotropic", "arithmetic", 0.0, primary=False),
    ),
    headroom=(
        Headroom("experts.accuracy", "isotropic.accuracy", margin=2.0, inequalities=(_BLOCKS,), unit="points"),
        Headroom("experts.accuracy", "arithmetic.accuracy", margin=3.0, inequalities=(_GRID,), unit="points"),
        Headroom("experts.targets", "probe-few.accuracy", margin=1.0, inequalities=(_PROBE,), unit="points"),
        Headroom("experts.targets", "tuned-few.accuracy", margin=1.0, inequalities=(_TUNED,), unit="points"),
    ),
    pilot=Pilot(
        grids={
            "atlas": {"rate": (_LOW, 1e-2, 3e-2, 0.1, _HIGH)},
            "isotropic": {"rate": (_LOW, 1e-2, 3e-2, 0.1, _HIGH)},
            "atlas-few": {"rate": (_LOW, 1e-2, 3e-2, 0.1, _HIGH)},
            "probe-few": {"strength": (1e-3, 1e-2, 0.1, 1.0, 10.0)},
            "tuned-few": {"rate": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)},
        },
        score=("validation",),
        fixed={
            "arithmetic": "searches its factor on every seed",
            "experts": "a bound, nothing of which is merged",
            "plan": "as the card has it",
        },
    ),
    equal_budget=(
        EqualBudget(("labels",), tuple(arm.name for arm in ARMS if arm.name != "plan")),
        EqualBudget(("steps", "samples"), ("atlas", "isotropic")),
        EqualBudget(("steps",), ("atlas-few", "tuned-few")),
    ),
    minutes=60,
    notes=(
        "MiniLM and six short text tasks in place of CLIP and pictures; the upper three layers are tuned and merged.",
        "Labels are counted for what all arms of a seed share, the tuned models among it; few-shot arms learn from four rows a class.",
    ),
)
