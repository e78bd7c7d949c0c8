"""Reproduction of MultiTab-Net and MultiTab-Bench.

The paper reports that MultiTab-Net has a higher multitask gain than multi-task MLPs, MMoE, PLE and STEM and than single-task
transformers on AliExpress (12 million rows), ACS income (1.6 million) and Higgs (98,000, 100 passes); its synthetic tables have a
million rows (exact gains not verified here).

Our setting: MultiTab-Bench with 5 tasks, 16 features, 20,000 training and validation rows and 5,000 test rows, correlation 0,
0.4 and 0.8; and flights out of New York (12,000 training rows, two binary and two numeric targets). Every arm chooses its
learning rate from the same two, 3e-3 and 1e-2, on
validation rows: on MultiTab-Bench at correlation 0.4, used for the other correlations too, and on flights. (In calibration 1e-3
was worse than 3e-3 for the shared trunk, the separate models and MultiTab-Net alike.) AdamW, batch 512, 10 epochs, no arm is
stopped early. Rows of a batch read each other, as the paper writes it (``att_type="row_col"``), so test rows are predicted in
fixed batches of 512 in their order. The single-task reference and both multi-task baselines use the library's residual MLP.

This setting cannot show the claim, and the verdict says so: the shared trunk explains 99.5 % of what can be explained, where the
claim asks for a point more. What was tried in its place, without counting (one or two seeds of 300 and up, 18,000 training rows
unless said otherwise, rates tried by hand, points of explained variance or of the area under the ROC curve; baselines as the
released code has them, MLPs of 256 and 128 units with BatchNorm; MultiTab-Net in the form that its released code computes with
rotary positions, ``att_type="row_self"``):

- the same tables with 9,000 rows, 10 passes in batches of 128: multi-task MLP 97.6, MMoE of eight such experts 99.2,
  MultiTab-Net 95.4: 99.5 and more for all tasks but that of degree four, where it has 78;
- the released dials (7 tasks, 32 features), 6 passes: 98.3, 99.2 and 98.3, the residual trunk 99.4; again it is ahead on every
  task (99.7 and more) but that of degree four (89);
- a generated table with the columns and targets of Higgs: 82.5 and 83.7 after 12 passes in batches of 256, MultiTab-Net 70.0,
  and 74.6 in batches of 64, where it equals the MLP but for one mass that it had not begun to learn;
- the simulated log of :mod:`graftwork.data.suites.click_log`, 200,000 impressions once, each at its best rate: 73.0, 73.3 and 73.0;
  400,000 impressions: 76.3, 77.0 and 74.1.

So at sizes that two cores reach, tuned MLPs are level or ahead, and what MultiTab-Net lacks is the time to begin: it starts from
weights of 0.01 and stands still for hundreds of steps. The paper's claim is about abundant data. About 22 minutes on 2 cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Headroom, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.core.components import Component
from graftwork.core.seeds import Seeds
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.flights import flights
from graftwork.data.suites.multitab_bench import multitab_bench
from graftwork.evaluation.metrics import default_metric, higher_is_better
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

_BATCH = 512
_EPOCHS = 10
_LEARNING_RATES = (3e-3, 1e-2)
_RHOS = {"rho00": 0.0, "rho04": 0.4, "rho08": 0.8}
_MULTITAB = "graftwork.methods.sharing.multitab:MultiTabNet"
_RELEASED_SYNTHETIC = {"att_type": "row_col", "mask": "none", "rotary": True}
_LABELS = Access(source_labels=True)


def _train(suite: Suite, arm: Arm, learning_rate: float, seed: int, context: ArmContext) -> Trainer:
    seeds = Seeds(seed)
    seeds.set_global("init")
    model = Component(arm.settings["sharing"], arm.settings.get("options", {})).build(
        suite.tasks, lambda: scratch_backbone(suite.input_specs), inputs=suite.input_specs
    )
    stream = BatchStream(suite, suite.splits["train"], _BATCH, seeds.integer("batches"))
    steps = context.choose(full=_EPOCHS * stream.steps_per_epoch, smoke=3)
    config = TrainConfig(max_steps=steps, batch_size=_BATCH, learning_rate=learning_rate, weight_decay=1e-5)
    trainer = Trainer(
        model, suite.tasks, stream, balancer=EqualWeights(), config=config, seeds=seeds, callbacks=[context.budget_callback()]
    )
    trainer.train(steps, on_progress=lambda step: context.progress(step / steps, f"{suite.name} {step}/{steps}"))
    return trainer


def _search(suite: Suite, data: GuardedSuite, arm: Arm, seed: int, context: ArmContext) -> tuple[float, Trainer]:
    """Train with every learning rate; return the best by the mean primary metric on validation rows, and its model."""
    rows = data.visible.splits["val"]
    tried: list[tuple[float, float, Trainer]] = []
    for learning_rate in _LEARNING_RATES:
        trainer = _train(data.visible, arm, learning_rate, seed, context)
        context.count("trials")
        scores = data.score("val", trainer.predict(data.visible, rows, batch_size=_BATCH))
        mean = float(np.mean([_primary(suite, name, values) for name, values in scores.items()]))
        tried.append((mean, learning_rate, trainer))
    # The first of equals, the smaller rate.
    _, best, trainer = max(tried, key=lambda item: item[0])
    return best, trainer


def _make_suite(world: str, seed: int, context: ArmContext) -> Suite:
    if world == "flights":
        return flights(rows=context.choose(full=20_000, smoke=1_500), seed=seed)
    rows, test_rows = context.choose(full=(25_000, 5_000), smoke=(1_200, 300))
    return multitab_bench(rows=rows, test_rows=test_rows, rho=_RHOS[world], seed=seed)


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Search the learning rate on the arm's first world, train on the others, and measure test performance in points
    (hundredths)."""
    measured: dict[str, Any] = {}
    learning_rate: float | None = None
    for world in arm.settings["worlds"]:
        suite = _make_suite(world, seed, context)
        data = context.guard(suite)
        # The first world only: later ones are trained with the rate that was found there.
        if learning_rate is None:
            learning_rate, trainer = _search(suite, data, arm, seed, context)
        else:
            trainer = _train(data.visible, arm, learning_rate, seed, context)
        questions = data.questions("test")
        # The batch is part of the prediction, so it is the same for every arm.
        scores = data.score("test", trainer.predict(questions, questions.splits["test"], batch_size=_BATCH))
        primary = {name: 100.0 * _primary(suite, name, values) for name, values in scores.items()}
        measured[world] = {"mean": float(np.mean(list(primary.values()))), **primary}
    return {**measured, "learning_rate": learning_rate}


def _primary(suite: Suite, name: str, values: Mapping[str, float]) -> float:
    """Explained variance for numbers, the default metric (higher is better) for classes."""
    task = suite.task(name)
    metric = "r2" if task.kind == "regression" else default_metric(task)
    assert higher_is_better(metric)
    return values[metric]


_BENCH = {"worlds": ["rho04", "rho00", "rho08"]}
"""The first world is the one on which the learning rate is chosen."""
_REAL = {"worlds": ["flights"]}

RECIPE = Recipe(
    slug="multitab",
    seeds=(0, 1, 2),
    smoke_seeds=(0,),
    arms=(
        Arm("single", "one residual MLP per task", _LABELS, {"sharing": "graftwork.methods.sharing.separate:Separate", **_BENCH}),
        Arm("shared", "shared-bottom MLP", _LABELS, {"sharing": "graftwork.methods.sharing.shared_trunk:SharedTrunk", **_BENCH}),
        Arm("mmoe", "mixture of experts (MMoE)", _LABELS, {"sharing": "graftwork.methods.sharing.mmoe:MMoE", **_BENCH}),
        Arm(
            "multitab",
            "MultiTab-Net, released synthetic settings",
            _LABELS,
            {"sharing": _MULTITAB, "options": _RELEASED_SYNTHETIC, **_BENCH},
        ),
        Arm(
            "txt",
            "MultiTab-Net, mask TxT",
            _LABELS,
            {"sharing": _MULTITAB, "options": {"att_type": "row_col", "mask": "TxT"}, **_REAL},
        ),
        Arm(
            "nomask",
            "MultiTab-Net, no mask",
            _LABELS,
            {"sharing": _MULTITAB, "options": {"att_type": "row_col", "mask": "none"}, **_REAL},
        ),
        Arm(
            "onetoken",
            "MultiTab-Net, one token for all tasks",
            _LABELS,
            {"sharing": _MULTITAB, "options": {"att_type": "row_col", "mask": "none", "single_token": True}, **_REAL},
        ),
        Arm(
            "realshared",
            "shared-bottom MLP on flights",
            _LABELS,
            {"sharing": "graftwork.methods.sharing.shared_trunk:SharedTrunk", **_REAL},
        ),
    ),
    run_arm=run_arm,
    inequalities=(
        Inequality(
            "beats MMoE on MultiTab-Bench",
            "multitab.rho04.mean",
            "mmoe.rho04.mean",
            margin=1.0,
            unit="points of explained variance",
        ),
        Inequality(
            "beats the shared bottom on MultiTab-Bench",
            "multitab.rho04.mean",
            "shared.rho04.mean",
            margin=1.0,
            unit="points of explained variance",
        ),
        Inequality(
            "mask TxT is not worse than no mask on flights",
            "txt.flights.mean",
            "nomask.flights.mean",
            demand="not worse",
            unit="points",
        ),
        Inequality("one token per task beats one for all on flights", "txt.flights.mean", "onetoken.flights.mean", unit="points"),
        Inequality(
            "advantage over the shared bottom is there without correlation",
            "multitab.rho00.mean",
            "shared.rho00.mean",
            unit="points of explained variance",
        ),
        Inequality(
            "advantage over the shared bottom is there at high correlation",
            "multitab.rho08.mean",
            "shared.rho08.mean",
            unit="points of explained variance",
        ),
        Inequality(
            "gains over single-task models",
            "multitab.rho04.mean",
            "single.rho04.mean",
            unit="points of explained variance",
            primary=False,
        ),
        Inequality(
            "beats the shared bottom on flights", "txt.flights.mean", "realshared.flights.mean", unit="points", primary=False
        ),
    ),
    headroom=(
        # 100 % is all that can be explained.
        Headroom(100.0, "mmoe.rho04.mean", margin=1.0, inequalities=("beats MMoE on MultiTab-Bench",), unit="points"),
        Headroom(
            100.0,
            "shared.rho04.mean",
            margin=1.0,
            inequalities=(
                "beats the shared bottom on MultiTab-Bench",
                "advantage over the shared bottom is there without correlation",
                "advantage over the shared bottom is there at high correlation",
            ),
            unit="points",
        ),
    ),
    equal_budget=(
        EqualBudget(("steps", "samples", "labels", "trials"), ("single", "shared", "mmoe", "multitab")),
        EqualBudget(("steps", "samples", "labels", "trials"), ("txt", "nomask", "onetoken", "realshared")),
    ),
    minutes=22,
    notes=(
        "20,000 training and validation rows instead of a million; one block, width 16, as released.",
        "Baselines are residual MLPs with layer norms, stronger than plain MLPs on polynomial labels.",
        "Rows read each other, as the paper writes it; with rotary positions, which this recipe uses on MultiTab-Bench, the released "
        "code has every row read itself.",
    ),
)
