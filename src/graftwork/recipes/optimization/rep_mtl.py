"""Reproduction of Rep-MTL.

The paper reports, for DeepLabV3+ on NYUv2 (semantic classes, depth, normals), a mean change against single-task models of +1.70
for Rep-MTL with equal weights, -1.78 for equal weights alone, +0.23 with TSR only and +1.06 with CSA only; it runs 26 % faster
than Nash-MTL.

Our setting: @@SETTING@@
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.claims.costs import cheaper_than_fastest
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
from graftwork.data.loader import BatchStream
from graftwork.data.suite import Suite
from graftwork.data.suites.scenes import scene_domains, scenes
from graftwork.evaluation.delta_m import delta_m
from graftwork.evaluation.metrics import higher_is_better
from graftwork.interfaces.balancer import Balancer
from graftwork.interfaces.objective import Objective
from graftwork.interfaces.shared_model import SharedModel
from graftwork.methods.optimization.log_losses import LogLosses
from graftwork.methods.optimization.rep_mtl import RepMTL
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.methods.sharing.separate import Separate
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.training.trainer import TrainConfig, Trainer

__all__ = ["RECIPE"]

METRICS = {"semantic": "miou", "depth": "mae", "normals": "mean_angle"}
STYLES = ("plain", "checker", "night")
CHANNELS = (16, 32, 48, 48)
LABELS = Access(source_labels=True)


def run_arm(arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Train one arm and measure test scores and CPU milliseconds per step."""
    domains = arm.settings.get("world") == "domains"
    sizes: dict[str, Any] = context.choose(
        full={"num_train": 1200, "num_val": 0, "num_test": 1200 if domains else 800},
        smoke={"num_train": 48, "num_val": 0, "num_test": 24},
    )
    world = scene_domains(styles=STYLES, seed=seed, **sizes) if domains else scenes(seed=seed, **sizes)
    # The world is the same for all arms of a run; one report is enough.
    if arm.settings["sharing"] == "separate":
        context.independence(world.raw["factors"])
    data = context.guard(world)
    batch_size = context.choose(full=16, smoke=8)
    # An arm that is there for its cost alone learns for a few steps.
    timed_only = bool(arm.settings.get("timed_only"))
    steps = context.choose(full=40 if timed_only else 300 if domains else 500, smoke=6)
    context.seeds.set_global("init")
    model = _build_model(arm, world)
    balancer, objectives = _build_optimization(arm)
    stream = BatchStream(data.visible, data.visible.splits["train"], batch_size, context.seeds.integer("batches"))
    rate = float(arm.settings["rate"])
    trainer = Trainer(
        model,
        world.tasks,
        stream,
        balancer=balancer,
        objectives=objectives,
        # No clipping: one norm over all parameters would couple the single-task models of the reference.
        config=TrainConfig(max_steps=steps, batch_size=batch_size, learning_rate=rate, weight_decay=1e-5, grad_clip=0.0),
        seeds=context.seeds,
        callbacks=[context.budget_callback()],
    )
    # CPU time of training alone: the jobs of a run may share cores.
    started = time.process_time()
    trainer.train(steps, on_progress=lambda step: context.progress(step / steps))
    step_ms = 1000.0 * (time.process_time() - started) / steps
    if timed_only:
        return {"step_ms": step_ms}
    asked = data.questions("test")
    scores = data.score("test", trainer.predict(asked, asked.splits["test"], world.task_names))
    return {"scores": scores, "step_ms": step_ms, "log_score": _log_score(scores)}


def _log_score(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return 100 times the mean logarithm of the scores, errors turned round: its differences are relative changes in points, as
    those of delta-m, and need no single-task model."""
    total = 0.0
    for name, values in scores.items():
        metric = METRICS[name.split("_")[0]]
        total += math.log(max(values[metric], 1e-6)) * (1.0 if higher_is_better(metric) else -1.0)
    return 100.0 * total / len(scores)


def _build_model(arm: Arm, world: Suite) -> SharedModel:
    def make_backbone() -> ConvBackbone:
        return ConvBackbone(world.only_input.sizes["image_size"], channels=CHANNELS, feature_map=True)

    operator = Separate if arm.settings["sharing"] == "separate" else SharedTrunk
    return operator(world.tasks, make_backbone, inputs=world.input_specs, head_hidden=8)


def _build_optimization(arm: Arm) -> tuple[Balancer, Sequence[Objective]]:
    if "solver" in arm.settings:
        # Nash-MTL's direction does not change with factors on losses: their logarithms would give the same.
        return jacobian_balancer("NashMTL", solver=arm.settings["solver"]), []
    if "factor" not in arm.settings:
        return LogLosses(), []
    terms = {name: arm.settings["factor"] * share for name, share in arm.settings["terms"].items()}
    return LogLosses(), [RepMTL(**terms, log_losses=True)]


def derive(seed: SeedMeasurements) -> Mapping[str, dict[str, Any]]:
    """Add delta-m of the same world and seed in points: against single-task models, over styles against equal weights."""
    derived: dict[str, dict[str, Any]] = {}
    for arm, values in seed.items():
        if not any(name.startswith("scores.") for name in values):
            continue
        # Styles are another world, whose reference is equal weights.
        reference = seed["domains-equal" if arm.startswith("domains-") else "single"]
        metrics = {f"semantic_{style}": "miou" for style in STYLES} if arm.startswith("domains-") else METRICS
        keys = [f"scores.{task}.{metric}" for task, metric in metrics.items()]
        derived[arm] = {
            "delta_m": delta_m(list(metrics.values()), [values[key] for key in keys], [reference[key] for key in keys])
        }
    return derived


def _arm(name: str, title: str, rate: float = 2e-3, **settings: Any) -> Arm:
    return Arm(name, title, access=LABELS, settings={"sharing": "shared", "rate": rate, **settings})


_BOTH = {"lambda_tsr": 1.0, "lambda_csa": 1.0}
ARMS = (
    _arm("single", "one model per task", sharing="separate"),
    _arm("equal", "equal weights"),
    _arm("nash", "Nash-MTL, the library's solver", solver="newton"),
    _arm("nash-solver", "Nash-MTL, the published solver, timed alone", solver="torchjd", timed_only=True),
    _arm("rep-mtl", "Rep-MTL with equal weights", factor=0.1, terms=_BOTH),
    _arm("tsr", "saliency regulation only", factor=0.1, terms={**_BOTH, "lambda_csa": 0.0}),
    _arm("csa", "saliency alignment only", factor=0.1, terms={**_BOTH, "lambda_tsr": 0.0}),
    _arm("domains-equal", "equal weights over styles", world="domains"),
    _arm("domains-rep-mtl", "Rep-MTL over styles", world="domains", factor=0.1, terms=_BOTH),
)

_RATES = (1e-3, 2e-3, 4e-3, 8e-3)
RECIPE = Recipe(
    slug="rep-mtl",
    arms=ARMS,
    seeds=tuple(range(10, 23)),
    looks=(3, 5, 8, 13),
    smoke_seeds=(0,),
    run_arm=run_arm,
    derive=derive,
    inequalities=(
        Inequality("beats equal weights", "rep-mtl.delta_m", "equal.delta_m", margin=0.5, min_sign_seeds=11, unit="points"),
        cheaper_than_fastest("a step costs less than Nash-MTL's, whichever solver is faster", "rep-mtl", ("nash", "nash-solver")),
        cheaper_than_fastest(
            "a step costs less than that of Nash-MTL with the published solver", "rep-mtl", ("nash-solver",), primary=False
        ),
        cheaper_than_fastest("a step costs less than 2.5 of equal weights", "rep-mtl", ("equal",), factor=2.5, primary=False),
        Inequality(
            "no worse than TSR alone",
            "rep-mtl.delta_m",
            "tsr.delta_m",
            margin=0.5,
            demand="not worse",
            primary=False,
            unit="points",
        ),
        Inequality(
            "no worse than CSA alone",
            "rep-mtl.delta_m",
            "csa.delta_m",
            margin=0.5,
            demand="not worse",
            primary=False,
            unit="points",
        ),
        Inequality(
            "over styles, no worse than equal weights",
            "domains-rep-mtl.delta_m",
            "domains-equal.delta_m",
            margin=0.5,
            demand="not worse",
            primary=False,
            unit="points",
        ),
        Inequality("beats Nash-MTL", "rep-mtl.delta_m", "nash.delta_m", primary=False, unit="points"),
    ),
    headroom=(Headroom("nash.delta_m", "equal.delta_m", margin=0.5, inequalities=("beats equal weights",), unit="points"),),
    pilot=Pilot(
        grids={
            "equal": {"rate": _RATES},
            "nash": {"rate": _RATES},
            "rep-mtl": {"factor": (0.01, 0.03, 0.1, 0.3)},
        },
        score=("log_score",),
        follows={"single": "equal", "tsr": "rep-mtl", "csa": "rep-mtl", "domains-equal": "equal", "domains-rep-mtl": "rep-mtl"},
        fixed={"nash-solver": "it is timed alone"},
    ),
    equal_budget=(
        # World by world: the run over styles has other sizes. The published solver is timed over a few steps.
        EqualBudget(
            ("steps", "samples", "labels"),
            tuple(arm.name for arm in ARMS if not {"world", "timed_only"} & set(arm.settings)),
        ),
        EqualBudget(("steps", "samples", "labels"), tuple(arm.name for arm in ARMS if "world" in arm.settings)),
    ),
    minutes=25,
    notes=(
        "Generated scenes and a small encoder trained from nothing stand for NYUv2 and a pretrained DeepLabV3+.",
        "All arms but Nash-MTL sum the logarithms of the losses, as the paper's appendix has it; "
        "a factor on a loss does not change the direction of Nash-MTL.",
        "The factor of both terms comes from the pilot; the paper's is 1, which destroys this network.",
        "The paper's terms are taken to move the trunk only: they are written as functions of the features.",
        "The temperature is not in the paper; it is 0.5. The anchor keeps tasks as columns, as figure 2 of the paper shows it.",
        "Depth is learned by smooth L1 with a knee at 0.1 standard deviations in place of L1, whose second derivative is zero.",
        "In the run over styles each picture has one task's label, so that saliencies of different tasks "
        "never meet at one picture.",
    ),
)
