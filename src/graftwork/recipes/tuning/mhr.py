"""Reproduction of multi-head adapter routing.

The paper reports, for held-out tasks of T0 and Super-NaturalInstructions, MHR above Poly and a shared LoRA at comparable numbers of
parameters, MHR-z competitive with a tiny number of trained parameters, MHR-mu about as good as routing, and gradients of the tasks
most aligned for MHR (exact figures not recalled).

Our setting: MiniLM and eight short text tasks; six are learned together (600 steps of 16 texts), two, nouns and Turkish names of
emoji, are held out: their relatives are among the six. An inventory of 8 modules of rank 4 on every linear layer is routed in 4
slices (MHR) or as a whole (Poly); the shared LoRA has rank 32, as many numbers. Then each held-out task is tuned with 48 labelled
texts for 100 steps, with a new head: everything, the routing alone, or the mean of all modules. Each arm is pre-trained by a plan like
that on the card and tuned by one of the card's plans. Accuracies in percent, means over the two tasks. The bound has all texts of the
target. Alignment is the mean cosine between gradients of two tasks with respect to the modules, after pre-training.

The pilot chooses each arm's rate of tuning from four on seeds 100 and 101 by validation accuracy; pre-training has a rate of 1e-3 in
all arms.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Pilot, Recipe
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.files import read_json, write_json
from graftwork.core.plan import Plan
from graftwork.data.loader import iter_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.short_text_mix import short_text_mix
from graftwork.data.suites.short_texts import TEXT_TASKS
from graftwork.methods.tuning.mhr_tasks import MultiHeadRouting
from graftwork.tasks.losses import task_loss
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "alignment", "pretraining_plan", "run_arm", "tuning_plan"]

BACKBONE = "minilm"
HELD_OUT = ("nouns", "emoji-turkish")
TRAINED = tuple(task for task in TEXT_TASKS if task not in HELD_OUT)
INVENTORIES: Mapping[str, Mapping[str, int]] = {
    "mhr": {"skills": 8, "r": 4, "heads": 4},
    "poly": {"skills": 8, "r": 4, "heads": 1},
    "shared": {"skills": 1, "r": 32, "heads": 1},
}
"""Of as many numbers each, but for the routing."""
FEW, STEPS, PRETRAINING, BATCH = 48, 100, 600, 16
RATE = 1e-3
"""Of pre-training."""
LABELS = Access(source_labels=True)


def pretraining_plan(kind: str) -> Plan:
    """Return the card's plan of several tasks with the inventory of an arm."""
    plan = card_plan("mhr", "mhr-tasks")
    # The scaling is lora_alpha / r: the same for all inventories.
    numbers = {**INVENTORIES[kind], "lora_alpha": 2.0 * INVENTORIES[kind]["r"]}
    return plan.with_train(sharing=Component(plan.train.sharing.path, numbers))


def tuning_plan(name: str, files: list[Path]) -> Plan:
    """Return one of the card's plans that begins from these modules, or a plain LoRA if there are none."""
    plan = card_plan("mhr", name)
    if not files:
        return plan.with_train(tuning=Component("graftwork.methods.tuning.lora:LoRA", {"r": 32, "lora_alpha": 64.0}))
    assert plan.train.tuning is not None
    settings = {**plan.train.tuning.settings, "inventory": [str(file) for file in files]}
    return plan.with_train(tuning=Component(plan.train.tuning.path, settings))


def alignment(model: MultiHeadRouting, suite: Suite, rows: int) -> float:
    """Return the mean cosine between gradients of two tasks' losses with respect to all modules, over all pairs of tasks.

    Args:
        model: The model.
        suite: Its training rows are used, with the tokens that the model reads.
        rows: Labelled rows of each task.
    """
    modules = [item for layer in model.routed_layers().values() for item in (layer.down, layer.up)]
    gradients = []
    for task in suite.tasks:
        train = suite.splits["train"]
        own = train[suite.targets[task.name][train] >= 0][:rows]
        batch = next(iter(iter_rows(suite, own, rows)))
        loss = task_loss(task, model(batch.inputs, [task.name])[task.name], batch.targets[task.name])
        # Layers that features do not pass (a pooler) have none.
        found = torch.autograd.grad(loss, modules, allow_unused=True)
        gradients.append(torch.cat([item.flatten() for item in found if item is not None]))
    cosines = [F.cosine_similarity(one, other, dim=0) for one, other in itertools.combinations(gradients, 2)]
    return float(torch.stack(cosines).mean())


def _pretrain(folder: Path, kind: str, seed: int, context: ArmContext) -> None:
    """Learn the six tasks together and keep the modules."""
    sizes: dict[str, Any] = context.choose(full={}, smoke={"num_train": 4, "num_test": 2})
    tasks = context.choose(full=TRAINED, smoke=TRAINED[:2])
    data = context.guard(short_text_mix(tasks, seed=seed, **sizes))
    learner = context.train(
        pretraining_plan(kind),
        data,
        steps=context.choose(full=PRETRAINING, smoke=1),
        overrides={"batch_size": BATCH, "learning_rate": RATE},
        backbone=BACKBONE,
    )
    assert isinstance(learner, NeuralLearner)
    model = learner.best_model
    assert isinstance(model, MultiHeadRouting)
    for number, delta in enumerate(model.skill_deltas()):
        delta.save(folder / f"skill-{number}.safetensors")
    rows = context.choose(full=32, smoke=2)
    write_json(folder / "alignment.json", {"alignment": alignment(model.eval(), learner.suite, rows)})


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune for each held-out task; measure accuracies in percent, their mean, and numbers that learn without heads."""
    kind, rate = str(arm.settings["inventory"]), float(arm.settings["rate"])
    files: list[Path] = []
    found: dict[str, Any] = {}
    if kind:
        folder = context.once(f"inventory-{kind}", lambda path: _pretrain(path, kind, seed, context))
        files = [folder / f"skill-{number}.safetensors" for number in range(INVENTORIES[kind]["skills"])]
        found["alignment"] = float(read_json(folder / "alignment.json")["alignment"])
    test, validation = {}, []
    learned = 0
    for task in context.choose(full=HELD_OUT, smoke=HELD_OUT[:1]):
        count = None if arm.settings["all_labels"] else FEW
        sizes: dict[str, Any] = context.choose(full={"num_train": count}, smoke={"num_train": 4, "num_test": 2})
        data = context.guard(short_text_mix([task], seed=seed, **sizes))
        learner = context.train(
            tuning_plan(str(arm.settings["plan"]), files),
            data,
            steps=context.choose(full=STEPS, smoke=1),
            overrides={"batch_size": BATCH, "learning_rate": rate},
            backbone=BACKBONE,
        )
        assert isinstance(learner, NeuralLearner)
        test[task] = 100.0 * data.score("test", context.predict(learner, data))[task]["accuracy"]
        validation.append(100.0 * data.score("val", context.predict(learner, data, "val"))[task]["accuracy"])
        learned = sum(item.numel() for item in learner.model.shared_parameters() if item.requires_grad)
    mean = float(np.mean(list(test.values())))
    return {**found, "accuracy": test, "mean": mean, "validation": float(np.mean(validation)), "learned": learned}


def _arm(name: str, title: str, inventory: str, plan: str, rate: float, *, all_labels: bool = False) -> Arm:
    return Arm(name, title, LABELS, {"inventory": inventory, "plan": plan, "rate": rate, "all_labels": all_labels})


ARMS = (
    _arm("mhr", "MHR: routing by slices, everything learns", "mhr", "mhr", 1e-3),
    _arm("mhr-z", "MHR-z: the routing alone learns", "mhr", "mhr-z", 1e-2),
    _arm("mhr-mu", "MHR-mu: the mean of the modules learns", "mhr", "mhr-mu", 1e-3),
    _arm("poly", "Poly: routing of whole modules, everything learns", "poly", "poly", 1e-3),
    _arm("shared", "a LoRA that all tasks shared, tuned on", "shared", "mhr-mu", 1e-3),
    _arm("scratch", "a new LoRA", "", "mhr", 1e-3),
    _arm("bound", "a new LoRA with all texts of the target", "", "mhr", 1e-3, all_labels=True),
)
_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
_POINTS = ("MHR beats Poly", "Poly beats a shared LoRA", "the routing alone beats a new LoRA")

RECIPE = Recipe(
    slug="mhr",
    arms=ARMS,
    smoke_seeds=(0,),
    run_arm=run_arm,
    inequalities=(
        Inequality(_POINTS[0], "mhr.mean", "poly.mean", unit="points"),
        Inequality(_POINTS[1], "poly.mean", "shared.mean", margin=0.5, unit="points"),
        Inequality(_POINTS[2], "mhr-z.mean", "scratch.mean", unit="points"),
        Inequality(
            "with less than 1 % of its parameters", "scratch.learned", "mhr-z.learned", demand="at least", left_factor=0.01
        ),
        Inequality(
            "the mean is not worse than routing", "mhr-mu.mean", "mhr.mean", margin=1.0, demand="not worse", unit="points"
        ),
        Inequality(
            "the mean is not better than routing", "mhr.mean", "mhr-mu.mean", margin=1.0, demand="not worse", unit="points"
        ),
        Inequality("gradients are aligned more by MHR than by Poly", "mhr.alignment", "poly.alignment"),
        Inequality("and more by Poly than by a shared LoRA", "poly.alignment", "shared.alignment"),
        Inequality("pre-training helps", "shared.mean", "scratch.mean", primary=False, unit="points"),
    ),
    headroom=(Headroom("bound.mean", "scratch.mean", margin=1.0, inequalities=_POINTS, unit="points"),),
    pilot=Pilot(
        grids={
            **{name: {"rate": _RATES} for name in ("mhr", "mhr-mu", "poly", "shared", "scratch")},
            "mhr-z": {"rate": (3e-3, 1e-2, 3e-2, 1e-1)},
        },
        score=("validation",),
        follows={"bound": "scratch"},
    ),
    equal_budget=(
        EqualBudget(("steps", "samples", "labels"), arms=("mhr", "mhr-z", "mhr-mu", "poly", "shared")),
        EqualBudget(("steps",), arms=("scratch", "bound")),
    ),
    minutes=90,
    notes=(
        "MiniLM, six tasks for pre-training and two held out, each with a head, in place of T0 with tasks by the hundred.",
        "One rate for routing and modules.",
    ),
)
