"""How a race uses the time that it is given, on a clock that only trainings move: nothing sleeps, and no other process disturbs it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.records import Plan
from graftwork.workflows.fit import FitRun, fit

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")

LEAST, MOST = 0.9, 1.1
"""Shares of the limit that a race uses, unless everything has converged."""
AFFINITY = 0.4
"""Of a training: what is kept for affinities, which need a network and take no time here."""


class Clock:
    """Seconds that pass when somebody sleeps, and then at once."""

    def __init__(self) -> None:
        self.now, self.pace = 1000.0, 1.0

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += self.pace * seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for name in ("monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, name, made.read)
    monkeypatch.setattr(time, "sleep", made.sleep)
    return made


def raced(clock: Clock, out: Path, plans: list[Plan], limit: float, **settings: Any) -> tuple[FitRun, float]:
    """Return the run and the seconds that it took."""
    began = clock.now
    fields = {"seeds": 3, "workers": 0, "backbone": "none", "folds": 0, **settings}
    run = fit(linear_suite(), plans=["none", *plans], out=out, time_limit=limit, **fields)
    return run, clock.now - began


def assert_used(run: FitRun, seconds: float, limit: float) -> None:
    assert seconds <= MOST * limit
    # The first training of a plan is made in parts, rung by rung.
    whole = {name: 0.0 for name, plan in run.result["plans"].items() if plan.get("finalist")}
    for item in run.result["race"]:
        if item["plan"] in whole and item["seed"] == 0:
            whole[item["plan"]] += item["seconds"]
    # What may be left is too little for one more training of every finalist: nothing that a race does is smaller, and time for a model
    # of all rows is kept for each of them until the verdict says who is handed over.
    least = LEAST * limit - sum(whole.values()) - AFFINITY * max(whole.values())
    assert seconds >= least, f"{seconds:.0f} s of {limit:g} s, and trainings take {whole}"


def plans_of(improving: bool = True, rate: float = 0.002, **delays: float) -> list[Plan]:
    """One plan a delay (seconds a step), the first of them the reference."""
    return [
        linear_plan(name, "joint" if place else "reference", rate=rate, improving=improving, delay=delay)
        for place, (name, delay) in enumerate(delays.items())
    ]


@pytest.mark.parametrize("limit", [60.0, 300.0])
@pytest.mark.parametrize(
    "delays",
    [
        {"alone": 0.02, "fast": 0.02},
        {"alone": 0.05, "fast": 0.01, "slow": 0.2, "slower": 0.5},
        {"alone": 0.3, "fast": 0.1},
    ],
    ids=["equal", "mixed", "slow"],
)
def test_a_race_whose_plans_improve_uses_the_time(clock: Clock, tmp_path: Path, delays: dict[str, float], limit: float) -> None:
    run, seconds = raced(clock, tmp_path / "run", plans_of(**delays), limit)
    assert_used(run, seconds, limit)
    assert run.choice


@pytest.mark.parametrize(("pace", "limit"), [(0.4, 300.0), (2.5, 300.0)])
def test_steps_that_cost_something_else_than_they_did_at_first(clock: Clock, tmp_path: Path, pace: float, limit: float) -> None:
    def change(event: dict[str, Any]) -> None:
        # The machine gets faster or slower once the schedule is made.
        if event["event"] == "schedule":
            clock.pace = pace

    run, seconds = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.03), limit, on_event=change)
    assert_used(run, seconds, limit)


@pytest.mark.parametrize("settings", [{"refit": False}, {"seeds": 1}, {"preset": "quick"}])
def test_other_settings_use_the_time_as_well(clock: Clock, tmp_path: Path, settings: dict[str, Any]) -> None:
    run, seconds = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.02), 120.0, **settings)
    assert_used(run, seconds, 120.0)


def test_what_has_converged_is_not_kept_waiting(clock: Clock, tmp_path: Path) -> None:
    run, seconds = raced(clock, tmp_path / "run", plans_of(improving=False, rate=0.3, alone=0.002, fast=0.002), 3600.0)
    assert seconds < 0.5 * 3600.0
    assert run.result["not_tested"] == [], "nothing was given up"
    assert not any(plan["still_improving"] for plan in run.result["plans"].values() if plan.get("finalist"))


@pytest.mark.parametrize(
    ("limit", "settings", "models"),
    [(3600.0, {}, 5), (3600.0, {"single": True}, 1), (3600.0, {"max_latency": 1000.0}, 1), (60.0, {"prefer": "cost"}, 1)],
)
def test_time_that_is_left_makes_several_models_of_all_rows(
    clock: Clock, tmp_path: Path, limit: float, settings: dict[str, Any], models: int
) -> None:
    plans = plans_of(improving=False, rate=0.3, alone=0.002, fast=0.002)
    run, seconds = raced(clock, tmp_path / "run", plans, limit, **settings)
    model = run.result["model"]
    assert (model["models"], model["parts"], model["rows"]) == (models, models, "all")
    assert seconds <= MOST * limit


def test_one_step_may_take_long(clock: Clock, tmp_path: Path) -> None:
    # A step of a twentieth of the limit cannot be interrupted: what runs at the end of the time ends its step.
    _, seconds = raced(clock, tmp_path / "run", plans_of(alone=3.0, fast=3.0), 60.0)
    assert seconds <= MOST * 60.0 + 3.0
