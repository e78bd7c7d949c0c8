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
    """Return the run and the share of the limit that it took."""
    began = clock.now
    fields = {"seeds": 3, "workers": 0, "backbone": "none", "folds": 0, **settings}
    run = fit(linear_suite(), plans=["none", *plans], out=out, time_limit=limit, **fields)
    return run, (clock.now - began) / limit


def plans_of(improving: bool = True, rate: float = 0.002, **delays: float) -> list[Plan]:
    """One plan a delay (seconds a step), the first of them the reference."""
    return [
        linear_plan(name, "joint" if place else "reference", rate=rate, improving=improving, delay=delay)
        for place, (name, delay) in enumerate(delays.items())
    ]


@pytest.mark.parametrize("limit", [30.0, 60.0, 300.0, 3600.0])
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
    run, share = raced(clock, tmp_path / "run", plans_of(**delays), limit)
    assert LEAST <= share <= MOST
    assert run.choice


@pytest.mark.parametrize("limit", [30.0, 300.0])
@pytest.mark.parametrize("pace", [0.4, 2.5])
def test_steps_that_cost_something_else_than_they_did_at_first(clock: Clock, tmp_path: Path, pace: float, limit: float) -> None:
    def change(event: dict[str, Any]) -> None:
        # The machine gets faster or slower once the schedule is made.
        if event["event"] == "schedule":
            clock.pace = pace

    _, share = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.03), limit, on_event=change)
    assert LEAST <= share <= MOST


@pytest.mark.parametrize("settings", [{"folds": 3}, {"refit": False}, {"seeds": 1}, {"keep": "chosen"}, {"preset": "quick"}])
def test_other_settings_use_the_time_as_well(clock: Clock, tmp_path: Path, settings: dict[str, Any]) -> None:
    _, share = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.02), 120.0, **settings)
    assert LEAST <= share <= MOST


def test_what_has_converged_is_not_kept_waiting(clock: Clock, tmp_path: Path) -> None:
    run, share = raced(clock, tmp_path / "run", plans_of(improving=False, rate=0.3, alone=0.002, fast=0.002), 3600.0)
    assert share < LEAST
    assert run.result["not_tested"] == [], "nothing was given up"
    assert not any(plan["still_improving"] for plan in run.result["plans"].values() if plan.get("finalist"))


def test_one_step_may_take_long(clock: Clock, tmp_path: Path) -> None:
    # A step of a tenth of the limit cannot be interrupted: what runs at the end of the time ends its step.
    _, share = raced(clock, tmp_path / "run", plans_of(alone=3.0, fast=3.0), 60.0)
    assert share <= MOST + 3.0 / 60.0
