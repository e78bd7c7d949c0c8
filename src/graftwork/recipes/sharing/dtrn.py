"""Reproduction of DTRN: task-specific bottoms against shared ones."""

from __future__ import annotations

from collections.abc import Mapping
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
from graftwork.core.components import Component
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.aspects import aspects
from graftwork.data.suites.behaviours import BEHAVIOURS
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["ARMS", "RECIPE", "WORLD", "build_model", "derive", "run_arm"]

WORLD: Mapping[str, Any] = {"num_items": 40, "groups": 4, "length": 5, "side": 0.4, "strength": 4.0, "rows_per_user": 8}
"""The shop; see :func:`graftwork.data.suites.aspects.aspects`."""
BATCH, STEPS = 256, 1500
_SHARING = "graftwork.methods.sharing"


def build_model(arm: Arm, suite: Suite) -> SharedModel:
    """Build an arm's model. Only models with a trunk call the builder; DTRN has bottoms of its own."""
    model: SharedModel = Component(arm.settings["sharing"], arm.settings["options"]).build(
        suite.tasks,
        lambda: BehaviourBackbone(suite.only_input.sizes, num_layers=arm.settings["layers"]),
        inputs=suite.input_specs,
    )
    return model


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train the arm's model and measure the area under the ROC curve of each task in points (hundredths), and its parameters."""
    rows, test_rows = context.choose(full=(60_000, 20_000), smoke=(2_000, 500))
    suite = aspects(rows=rows, test_rows=test_rows, seed=seed, **WORLD)
    data = context.guard(suite)
    test = suite.splits["test"]
    # The world is the same for all arms; one report is enough. One row a user: those of one user are alike.
    if arm.name == "dtrn":
        alone = test[:: WORLD["rows_per_user"]]
        context.independence(
            {name: column[alone] for name, column in suite.raw["factors"].items()},
            {name: suite.targets[name][alone] for name in suite.task_names},
        )
    if arm.name == "oracle":
        return _measure(data.score("test", _true_rates(suite)), parameters=0)
    context.seeds.set_global("init")
    model = build_model(arm, suite)
    stream = BatchStream(data.visible, suite.splits["train"], BATCH, context.seeds.integer("batches"))
    steps = context.choose(full=STEPS, smoke=8)

    def validate() -> float:
        predicted = trainer.predict(data.visible, data.rows("val"), batch_size=2048)
        return _measure(data.score("val", predicted), parameters=0)["mean_auc"]

    trainer = Trainer(
        model,
        suite.tasks,
        stream,
        balancer=EqualWeights(),
        config=TrainConfig(
            max_steps=steps, batch_size=BATCH, learning_rate=arm.settings["rate"], weight_decay=0.0, optimizer="adam"
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback(), context.watch(validate, steps)],
    )
    trainer.train(steps, on_progress=lambda step: context.progress(step / steps, f"{step}/{steps}"))
    # Larger batches than in training: rows do not see each other.
    scores = data.score("test", trainer.predict(data.questions("test"), test, batch_size=2048))
    return _measure(scores, parameters=sum(parameter.numel() for parameter in model.parameters()))


def _true_rates(suite: Suite) -> dict[str, Any]:
    """Return what nobody can know: probabilities of the test rows without the noise that no column shows, by task."""
    rows, factors = suite.splits["test"], suite.raw["factors"]
    logits = {name: factors[f"{name} match"][rows] + factors[f"{name} effects"][rows] for name in suite.task_names}
    return {name: 1.0 / (1.0 + np.exp(-values)) for name, values in logits.items()}


def _measure(scores: Mapping[str, Mapping[str, Any]], *, parameters: int) -> dict[str, Any]:
    areas = {name: 100.0 * scores[name]["roc_auc"] for name in BEHAVIOURS}
    return {"auc": areas, "mean_auc": sum(areas.values()) / len(areas), "parameters": parameters}


def derive(results: SeedMeasurements) -> Mapping[str, Measurements]:
    """Add how many tasks are worse than in the single-task models, and the size over DTRN's."""
    found: dict[str, Measurements] = {}
    for arm, values in results.items():
        worse = sum(values[f"auc.{task}"] < results["single"][f"auc.{task}"] for task in BEHAVIOURS)
        found[arm] = {"hurt_tasks": float(worse), "relative_size": values["parameters"] / results["dtrn"]["parameters"]}
    return found


_LABELS = Access(source_labels=True)


def _arm(name: str, title: str, module: str, *, rate: float = 1e-2, layers: int = 1, **options: Any) -> Arm:
    return Arm(name, title, _LABELS, {"sharing": f"{_SHARING}.{module}", "options": options, "layers": layers, "rate": rate})


_PLAIN = {"head_hidden": 16, "dropout": 0.0}
ARMS = (
    _arm("single", "one model per task", "separate:Separate", head_hidden=64),
    # Widths here and below bring the number of parameters within 10 % of that of DTRN.
    _arm("shared", "shared bottom", "shared_trunk:SharedTrunk", head_hidden=66),
    _arm("mmoe", "MMoE of equal size", "mmoe:MMoE", num_experts=4, expert_width=36, **_PLAIN),
    _arm(
        "mmoe-deep",
        "MMoE of equal size with three encoder layers",
        "mmoe:MMoE",
        layers=3,
        num_experts=4,
        expert_width=31,
        **_PLAIN,
    ),
    _arm(
        "ple",
        "PLE of equal size",
        "ple:PLE",
        num_levels=1,
        shared_experts=2,
        task_experts=1,
        expert_width=31,
        **_PLAIN,
    ),
    _arm("dtrn", "MMoE with task-specific bottoms (DTRN)", "dtrn:DTRN"),
    _arm("no-tim", "DTRN without the interest module", "dtrn:DTRN", tim="none"),
    _arm("no-trm", "DTRN without the refinement module", "dtrn:DTRN", trm=False),
    Arm("oracle", "the true match and effects (bound)", _LABELS),
)
_TRAINED = tuple(arm.name for arm in ARMS if arm.name != "oracle")

_POINTS = "points of AUC"
_HURT = "hurts fewer tasks than a shared bottom"

RECIPE = Recipe(
    slug="dtrn",
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        Inequality("beats MMoE of equal size", "dtrn.mean_auc", "mmoe.mean_auc", margin=0.3, unit=_POINTS),
        Inequality("beats PLE of equal size", "dtrn.mean_auc", "ple.mean_auc", margin=0.3, unit=_POINTS),
        # Fewer is better, so the claimed side stands on the right.
        Inequality(_HURT, "shared.hurt_tasks", "dtrn.hurt_tasks", unit="tasks"),
        *(
            Inequality(f"beats MMoE of equal size, {task}", f"dtrn.auc.{task}", f"mmoe.auc.{task}", unit=_POINTS, primary=False)
            for task in BEHAVIOURS
        ),
        Inequality("beats MMoE with three encoder layers", "dtrn.mean_auc", "mmoe-deep.mean_auc", unit=_POINTS, primary=False),
        Inequality("the interest module helps", "dtrn.mean_auc", "no-tim.mean_auc", unit=_POINTS, primary=False),
        Inequality("the refinement module helps", "dtrn.mean_auc", "no-trm.mean_auc", unit=_POINTS, primary=False),
        Inequality("beats single-task models", "dtrn.mean_auc", "single.mean_auc", unit=_POINTS, primary=False),
        *(
            Inequality(f"{title} is at least nine tenths as large", f"{arm}.relative_size", 0.9, demand="at least", primary=False)
            for arm, title in (("mmoe", "MMoE"), ("ple", "PLE"), ("shared", "the shared bottom"))
        ),
    ),
    headroom=(
        *(
            Headroom(
                "oracle.mean_auc", f"{arm}.mean_auc", margin=0.3, inequalities=(f"beats {title} of equal size",), unit=_POINTS
            )
            for arm, title in (("mmoe", "MMoE"), ("ple", "PLE"))
        ),
        # Conflict: where a shared bottom costs nothing, nothing can be mended.
        Headroom("shared.hurt_tasks", "single.hurt_tasks", margin=0.5, inequalities=(_HURT,), unit="tasks"),
    ),
    pilot=Pilot(
        grids={arm: {"rate": (5e-3, 1e-2, 2e-2)} for arm in ("single", "shared", "mmoe", "ple", "dtrn")},
        score=("mean_auc",),
        follows={"mmoe-deep": "mmoe", "no-tim": "dtrn", "no-trm": "dtrn"},
        fixed={"oracle": "it knows the world"},
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels"), _TRAINED),),
    minutes=45,
    notes=(
        "A simulated shop in place of the paper's data; 40 items, histories of 5, width 16, one encoder layer.",
        "What the paper's hypernetwork generates was not read: scales and shifts of layer norms here.",
        "All arms read the histories through the same encoder and attention from the item shown.",
    ),
)
