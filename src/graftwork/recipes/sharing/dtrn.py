"""Reproduction of DTRN: task-specific bottoms against shared ones.

The paper reports the best AUC on all tasks of one public and one industrial data set against models of the kinds MMoE and PLE,
and gains after deployment (figures not verified here).

Our setting: a simulated shop with three tasks (click, cart, buy) whose interests turn by 60 degrees from one to the next,
histories of 12 items, no user on both sides of a split; 90,000 rows for training, 30,000 for testing. Width 16, one encoder
layer, Adam, batch 256, two passes, no arm is stopped early. MMoE, PLE and the shared bottom are the library's own on a trunk
with the same fields, the same encoder and the same attention from the item shown, and within 10 % of DTRN's number of
parameters; the single-task models have such a trunk each.

One calibration, seed 100: at a batch of 1,024 all models were far from trained (mean AUC about 66), so 256 was taken; of the
learning rates 3e-3 and 1e-2 the larger was better for MMoE (71.24, 72.30), PLE (71.83, 72.63), the shared bottom (71.73, 72.70)
and DTRN (71.66, 72.12), and is used for every arm; single-task models and
ablations were not calibrated. DTRN beat none of the three there at the better rate: the counting run may well find that the
claim does not hold. Margins are the claim's and were not changed. About 10 minutes on 2 cores.

This world has too little conflict to show the claim: a shared bottom hurts no task. What was tried in its place, without counting
(seed 100, rate 1e-2, cosine schedule, batches of 256, MMoE and DTRN of equal size, mean AUC): a shop whose items have a group in
each of three aspects and a tone, and whose tasks go by the mean tone of those items of all histories that share an aspect with the
item shown, each task by another aspect first and by the two others with a weight of ``side`` and minus ``side``.

- 3 groups an aspect, histories of 4, ``side`` 0.4, 47,500 rows three times: shared bottom 84.0, single-task 83.7, MMoE 82.8, DTRN
  83.6, of 88.2 that are possible: no conflict. With 5 groups shared bottom and single-task models both have 82.2.
- 5 groups, histories of 6, ``side`` 0.2, 38,000 rows three times: shared bottom 79.3, single-task 81.5 (clicks 75.7 against 80.9,
  purchases 81.3 against 82.6), MMoE 77.8, DTRN 78.7, of 87.7: here tasks conflict, and DTRN is ahead of MMoE by more than the
  margin, but behind the shared bottom, and no arm was tuned or had converged.
- 5 groups, more items and noise, histories of 6, ``side`` 0.4, the own history counting double, 85,500 rows twice: shared bottom
  72.7, single-task 74.9, MMoE 72.9, DTRN 73.2, of 83.2: conflict on every task, and DTRN ahead of MMoE by just the margin.
"""

from __future__ import annotations

from typing import Any

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.core.components import Component
from graftwork.data.loader import BatchStream
from graftwork.data.suites.behaviours import BEHAVIOURS, behaviours
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["ARMS", "RECIPE", "derive", "run_arm"]

_BATCH = 256
_EPOCHS = 2
_LENGTH = 12
_SHARING = "graftwork.methods.sharing"


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train the arm's model and measure the area under the ROC curve of each task in points (hundredths), and its parameters."""
    rows, test_rows = context.choose(full=(100_000, 30_000), smoke=(2_000, 500))
    suite = behaviours(rows=rows, test_rows=test_rows, length=_LENGTH, seed=seed)
    data = context.guard(suite)
    # The world is the same for all arms; one report is enough.
    if arm.name == "dtrn":
        test = suite.splits["test"]
        context.independence(
            {name: column[test] for name, column in suite.raw["factors"].items()},
            {name: suite.targets[name][test] for name in suite.task_names},
        )
    context.seeds.set_global("init")
    # Only models with a trunk call the builder; DTRN has bottoms of its own.
    model = Component(arm.settings["sharing"], arm.settings["options"]).build(
        suite.tasks, lambda: BehaviourBackbone(suite.only_input.sizes), inputs=suite.input_specs
    )
    stream = BatchStream(data.visible, suite.splits["train"], _BATCH, context.seeds.integer("batches"))
    steps = context.choose(full=_EPOCHS * stream.steps_per_epoch, smoke=3)
    trainer = Trainer(
        model,
        suite.tasks,
        stream,
        balancer=EqualWeights(),
        config=TrainConfig(
            max_steps=steps, batch_size=_BATCH, learning_rate=arm.settings["rate"], weight_decay=0.0, optimizer="adam"
        ),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )
    trainer.train(steps, on_progress=lambda step: context.progress(step / steps, f"{step}/{steps}"))
    # Larger batches than in training: rows do not see each other.
    scores = data.score("test", trainer.predict(data.questions("test"), suite.splits["test"], batch_size=2048))
    areas = {name: 100.0 * scores[name]["roc_auc"] for name in suite.task_names}
    return {
        "auc": areas,
        "mean_auc": sum(areas.values()) / len(areas),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def derive(results: Any) -> dict[str, Measurements]:
    """Add how many tasks are better and how many worse than in the single-task models, and the size over DTRN's."""
    found: dict[str, Measurements] = {}
    for arm, values in results.items():
        worse = sum(values[f"auc.{task}"] < results["single"][f"auc.{task}"] for task in BEHAVIOURS)
        found[arm] = {"hurt_tasks": float(worse), "relative_size": values["parameters"] / results["dtrn"]["parameters"]}
    return found


_LABELS = Access(source_labels=True)


def _arm(name: str, title: str, module: str, **options: Any) -> Arm:
    path = f"{_SHARING}.{module}"
    return Arm(name, title, _LABELS, {"sharing": path, "options": options, "rate": 1e-2})


_PLAIN = {"head_hidden": 16}
ARMS = (
    _arm("single", "one model per task", "separate:Separate", head_hidden=64),
    # Widths here and below bring the number of parameters within 10 % of that of DTRN.
    _arm("shared", "shared bottom", "shared_trunk:SharedTrunk", head_hidden=60),
    _arm("mmoe", "MMoE of equal size", "mmoe:MMoE", num_experts=4, expert_width=36, dropout=0.0, **_PLAIN),
    _arm(
        "ple",
        "PLE of equal size",
        "ple:PLE",
        num_levels=1,
        shared_experts=2,
        task_experts=1,
        expert_width=31,
        dropout=0.0,
        **_PLAIN,
    ),
    _arm("dtrn", "MMoE with task-specific bottoms (DTRN)", "dtrn:DTRN"),
    _arm("no-tim", "DTRN without the interest module", "dtrn:DTRN", tim="none"),
    _arm("no-trm", "DTRN without the refinement module", "dtrn:DTRN", trm=False),
)

RECIPE = Recipe(
    slug="dtrn",
    seeds=(0, 1, 2, 3, 4),
    smoke_seeds=(0,),
    arms=ARMS,
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        Inequality("beats MMoE of equal size", "dtrn.mean_auc", "mmoe.mean_auc", margin=0.3, unit="points of AUC"),
        Inequality("beats PLE of equal size", "dtrn.mean_auc", "ple.mean_auc", margin=0.3, unit="points of AUC"),
        Inequality("the interest module helps", "dtrn.mean_auc", "no-tim.mean_auc", unit="points of AUC"),
        Inequality("the refinement module helps", "dtrn.mean_auc", "no-trm.mean_auc", unit="points of AUC"),
        # Fewer is better, so the claimed side stands on the right.
        Inequality("hurts fewer tasks than a shared bottom", "shared.hurt_tasks", "dtrn.hurt_tasks", unit="tasks"),
        Inequality("MMoE is at least nine tenths as large", "mmoe.relative_size", 0.9, demand="at least", primary=False),
        Inequality("PLE is at least nine tenths as large", "ple.relative_size", 0.9, demand="at least", primary=False),
        Inequality("beats single-task models", "dtrn.mean_auc", "single.mean_auc", unit="points of AUC", primary=False),
    ),
    equal_budget=(EqualBudget(("steps", "samples", "labels")),),
    minutes=10,
    notes=(
        "A simulated shop in place of the paper's data; histories of 12 items, width 16, one encoder layer.",
        "What the paper's hypernetwork generates was not read: scales and shifts of layer norms here.",
        "All arms read the histories through the same encoder and attention from the item shown.",
    ),
)
