"""The schedule of plans that are fitted in one go: trainings that are made, features that are computed once."""

from __future__ import annotations

import dataclasses
from typing import Any

from graftwork.core.records import Component, Plan
from graftwork.core.stages.train import TrainStage
from graftwork.workflows.runs.effort import Effort, RaceBudget
from graftwork.workflows.runs.horizons import paid_once, race_seconds
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.schedule import make_schedule


def plan(
    name: str, role: Any, source: Any = "scratch", *, quick: bool = False, tuning: Component | None = None, **training: int
) -> Plan:
    stages = (TrainStage(training=training, tuning=tuning),)
    return Plan(name=name, title=name, role=role, modalities=("table",), source=source, stages=stages, quick=quick)


PLANS = [plan("separate", "reference"), plan("shared", "joint"), plan("trees", "independent", quick=True, max_steps=400)]


def estimates(**changes: Estimate) -> dict[str, Estimate]:
    seconds = {"separate": 0.08, "shared": 0.024, "trees": 0.01}
    found = {
        name: Estimate(plan=name, seconds_per_step=each, setup_seconds=0.1, eval_seconds=0.05, steps_per_epoch=30.0)
        for name, each in seconds.items()
    }
    return {**found, **changes}


def budget(seconds: float) -> RaceBudget:
    return RaceBudget(seeds=(0, 1, 2), steps=None, seconds=seconds, workers=2, control_tasks=4)


def test_a_plan_whose_first_model_is_the_whole_training_races_however_long_that_took() -> None:
    """Trees of pixels were there after ten seconds, and left out as too slow."""
    linear = plan("linear", "independent", quick=True, max_steps=1)
    cost = Estimate(plan="linear", setup_seconds=20.0, is_made=True)
    costs = estimates(linear=cost)
    found = make_schedule([*PLANS, linear], costs, budget(45.0))
    assert "linear" in found.horizons
    one = Effort(seeds=1, control_seeds=0, control_tasks=0, refits=0, finalists=1)
    reference = PLANS[0]
    alone, made, anew = (
        race_seconds([reference, *more], {**costs, "linear": known}, {"separate": 50, "linear": 1}, budget(45.0), one)
        for more, known in (([], cost), ([linear], cost), ([linear], dataclasses.replace(cost, is_made=False)))
    )
    assert made - alone < 1.0, "its rungs and its first final are there"
    assert anew - alone >= 10.0, "one fit, by one of two workers: rungs and the first final go on from each other"


def test_features_that_several_plans_read_are_counted_once() -> None:
    first, second = (
        dataclasses.replace(
            plan(name, "independent", "pretrained", max_steps=1),
            stages=(TrainStage(training={"max_steps": 1}, tuning=Component("graftwork.methods.tuning.frozen:Frozen", settings)),),
        )
        for name, settings in (("linear", {"depths": True}), ("heads", {"depths": True}))
    )
    other = dataclasses.replace(
        first, name="other", stages=(TrainStage(tuning=Component("graftwork.methods.tuning.frozen:Frozen")),)
    )
    costs = {item.name: Estimate(plan=item.name, once_seconds=12.0) for item in (first, second, other, PLANS[0])}
    assert paid_once([first, second, other], costs) == {"linear": 12.0, "heads": 0.0, "other": 12.0}
    # Another cost that is paid once is nobody else's.
    assert paid_once([PLANS[0], PLANS[1]], {**costs, "shared": Estimate(plan="shared", once_seconds=3.0)}) == {
        "separate": 12.0,
        "shared": 3.0,
    }


def test_linear_models_on_features_stay_where_computing_them_takes_a_part_of_the_time() -> None:
    probe = plan("probe", "independent", "pretrained", max_steps=1)

    def kept(once: float) -> bool:
        cost = Estimate(plan="probe", setup_seconds=0.5, once_seconds=once)
        return "probe" in make_schedule([*PLANS, probe], estimates(probe=cost), budget(30.0)).horizons

    assert kept(12.0), "networks make fewer steps for it"
    assert not kept(35.0)
