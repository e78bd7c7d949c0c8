"""The schedule: fits into the time, equal steps where it must be equal, reasons for whoever is left out."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.records import Plan, Role
from graftwork.core.stages.train import TrainStage
from graftwork.workflows.runs.schedule import MAX_EPOCHS, Estimate, RaceBudget, Schedule, _total_seconds, make_schedule


def plan(name: str, role: Role, source: Literal["scratch", "pretrained"] = "scratch", **training: object) -> Plan:
    return Plan(name=name, title=name, role=role, modalities=("table",), source=source, stages=(TrainStage(training=training),))


PLANS = [
    plan("separate", "reference"),
    plan("shared", "joint"),
    plan("moe", "joint"),
    plan("weights", "joint"),
    plan("trees", "independent", max_steps=400),
    plan("frozen", "independent", "pretrained"),
    plan("full", "joint", "pretrained"),
]
SECONDS = {"separate": 0.04, "shared": 0.012, "moe": 0.02, "weights": 0.013, "trees": 0.005, "frozen": 0.003, "full": 0.8}


def estimates(factor: float = 1.0, epoch: float = 30.0, **changes: float) -> dict[str, Estimate]:
    return {
        name: Estimate(plan=name, seconds_per_step=factor * seconds, setup_seconds=0.1, eval_seconds=0.05, steps_per_epoch=epoch)
        for name, seconds in {**SECONDS, **changes}.items()
    }


def budget(steps: int | None, seconds: float | None, *, workers: int = 2, control_tasks: int = 4) -> RaceBudget:
    return RaceBudget(seeds=(0, 1, 2), steps=steps, seconds=seconds, workers=workers, control_tasks=control_tasks)


def schedule(seconds: float | None, steps: int | None = None, **changes: float) -> Schedule:
    return make_schedule(PLANS, estimates(**changes), budget(steps, seconds))


def test_given_steps_are_taken_as_they_are_and_nothing_measured_counts() -> None:
    first, second = schedule(None, 100), schedule(None, 100, factor=50.0)
    assert first.horizons == second.horizons
    assert first.horizons["separate"] == first.horizons["full"] == 100
    assert first.horizons["trees"] == 400
    assert first.control_seeds == 3
    assert [first.rung_steps("separate", rung) for rung in (0, 1)] == [25, 50]


def test_the_schedule_fits_and_uses_the_time() -> None:
    found = schedule(240.0)
    assert found.seconds <= 240.0
    assert found.seconds > 150.0
    assert found.left_out == {}
    scratch = {found.horizons[name] for name in ("separate", "shared", "moe", "weights")}
    assert len(scratch) == 1
    assert 0 < found.horizons["full"] < found.horizons["separate"]
    assert found.horizons["frozen"] >= found.horizons["separate"]


def test_much_time_stops_at_sixty_epochs_and_controls_get_all_seeds() -> None:
    found = schedule(1e7)
    assert found.horizons["separate"] == MAX_EPOCHS * 30
    assert found.control_seeds == 3
    assert schedule(60.0).control_seeds == 1


def test_a_plan_that_cannot_see_every_row_is_left_out_with_the_reason() -> None:
    found = schedule(240.0, full=30.0)
    assert "full" not in found.horizons
    assert "too slow: 30 s per step" in found.left_out["full"]


def test_too_little_time_keeps_the_reference_and_says_so() -> None:
    found = schedule(1.0)
    assert "separate" in found.horizons
    assert len(found.horizons) >= 2
    assert any("--time-limit" in note for note in found.notes)


def test_json_round_trip() -> None:
    import json

    found = schedule(100.0, full=30.0)
    assert Schedule.from_json(json.loads(json.dumps(found.to_json()))) == found
    estimate = estimates()["full"]
    assert Estimate.from_json(estimate.to_json()) == estimate


@settings(max_examples=60, deadline=None)
@given(
    st.floats(20, 5000),
    st.lists(st.floats(1e-4, 1.0), min_size=7, max_size=7),
    st.floats(1, 500),
    st.integers(1, 8),
)
def test_it_never_plans_more_than_the_time_unless_nothing_can_be_dropped(
    seconds: float, costs: list[float], epoch: float, workers: int
) -> None:
    known = estimates(epoch=epoch, **dict(zip(SECONDS, costs, strict=True)))
    given = budget(None, seconds, workers=workers, control_tasks=3)
    found = make_schedule(PLANS, known, given)
    racing = [item for item in PLANS if item.name in found.horizons]
    assert racing[0].name == "separate"
    assert set(found.horizons) | set(found.left_out) == set(SECONDS)
    assert all(steps >= 1 for steps in found.horizons.values())
    expected = _total_seconds(racing, known, found.horizons, given, found.control_seeds)
    assert expected == pytest.approx(found.seconds)
    assert found.seconds <= seconds * 1.001 or found.notes or len(racing) <= 2
