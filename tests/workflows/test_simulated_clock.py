"""How a race uses the time that it is given, on a clock that only trainings move: nothing sleeps, and no other process disturbs it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, Role, TaskSpec
from graftwork.data.folds import DRAWN
from graftwork.data.suite import Suite
from graftwork.workflows.fit import FitRun, RunStopped, fit
from graftwork.workflows.fit.session import FitSession

from .conftest import linear_plan, linear_suite  # type: ignore[import-not-found]

pytestmark = pytest.mark.usefixtures("fake_learners")

LEAST, MOST = 0.9, 1.1
"""Shares of the limit that a race uses, unless everything has converged."""
LIMITS = (20.0, 60.0, 300.0)


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


def raced(
    clock: Clock,
    out: Path,
    plans: list[Plan],
    limit: float,
    *,
    suite: Suite | None = None,
    on_event: Callable[[dict[str, Any]], None] = lambda _: None,
    **settings: Any,
) -> tuple[FitRun, float]:
    """Return the run and the seconds that it took."""
    began = clock.now
    delays = {plan.name: float(plan.train.learner.settings["delay"]) for plan in plans}

    def listen(event: dict[str, Any]) -> None:
        # These learners know no affinities: here is the time that those of a network take.
        if event["event"] == "job-start" and event["kind"] == "affinity":
            clock.sleep(delays[event["plan"]] * event["until"])
        on_event(event)

    fields = {"seeds": 3, "workers": 0, "backbone": "none", "folds": 0, **settings}
    source = linear_suite() if suite is None else suite
    run = fit(source, plans=["none", *plans], out=out, time_limit=limit, on_event=listen, **fields)
    return run, clock.now - began


def has_converged(run: FitRun) -> bool:
    """Return whether the run says that nothing improves any more; the finalists have to agree."""
    in_vain = {item["plan"] for item in run.result["attempts"] if item["longer"] and not item["taken"]}
    improving = {name for name, plan in run.result["plans"].items() if plan.get("still_improving")} - in_vain
    assert run.result["timing"]["converged"] is not bool(improving), f"{improving} still improve"
    return not improving


def assert_used(run: FitRun, seconds: float, limit: float) -> None:
    assert seconds <= MOST * limit
    assert seconds >= LEAST * limit or has_converged(run), f"{seconds:.1f} s of {limit:g} s"
    if seconds < LEAST * limit:
        assert run.result["not_tested"] == [], "what the schedule gave up for lack of time"


def plans_of(improving: bool = True, rate: float = 0.002, **delays: float) -> list[Plan]:
    """One plan a delay (seconds a step), the first of them the reference."""
    return [
        linear_plan(name, "joint" if place else "reference", rate=rate, improving=improving, delay=delay)
        for place, (name, delay) in enumerate(delays.items())
    ]


def trees(name: str, role: Role = "independent", *, rounds: int = 200, **settings: Any) -> Plan:
    """A plan with a horizon of its own."""
    plan: Plan = linear_plan(name, role, **settings)
    return plan.with_train(training={"max_steps": rounds})


def many_tasks(number: int = 30, rows: int = 90) -> Suite:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, 4)).astype(np.float32)
    y = (x @ draw.normal(size=(4, number)) + 0.1 * draw.normal(size=(rows, number))).astype(np.float32)
    names = [f"task {place}" for place in range(number)]
    cuts = np.split(draw.permutation(rows), [rows * 6 // 10, rows * 8 // 10])
    return Suite.of_arrays(
        name="many",
        input_specs=table_input(4),
        tasks=[TaskSpec(name=name, kind="regression", size=1) for name in names],
        inputs={"numeric": x, "categorical": np.zeros((rows, 0), dtype=np.int64)},
        targets={name: y[:, place : place + 1] for place, name in enumerate(names)},
        splits={name: np.sort(part) for name, part in zip(("train", "val", "test"), cuts, strict=True)},
    )


def drawn_suite() -> Suite:
    """A suite that may be divided into folds."""
    suite: Suite = linear_suite()
    return dataclasses.replace(suite, raw={**suite.raw, DRAWN: True})


SLOW_TREES = [trees("alone", "reference", rate=0.002, improving=True, delay=0.02), trees("joint", improving=True, delay=0.01)]
DONE_TREES = [
    trees("alone", "reference", rate=0.1, delay=0.02),
    trees("joint", rate=0.1, delay=0.01),
    trees("one", rate=0.2, delay=0.005),
]
QUICK_TREES = trees("trees", rounds=50, rate=0.3, delay=0.002)
RACES: dict[str, tuple[list[Plan], dict[str, Any]]] = {
    "equal networks": (plans_of(alone=0.02, fast=0.02), {}),
    "mixed networks": (plans_of(alone=0.05, fast=0.01, slow=0.2, slower=0.5), {}),
    "slow networks": (plans_of(alone=0.3, fast=0.1), {}),
    "six networks": (plans_of(alone=0.05, a=0.02, b=0.02, c=0.03, d=0.08, e=0.01), {}),
    "texts, read anew by every training": (
        [
            linear_plan(name, role, rate=0.002, improving=True, delay=0.03, setup=0.3)
            for name, role in (("alone", "reference"), ("fast", "joint"))
        ],
        {},
    ),
    "trees that improve": (SLOW_TREES, {}),
    "trees that are at their end": (DONE_TREES, {}),
    "trees that are best beside networks": ([*plans_of(alone=0.02, net=0.03), QUICK_TREES], {}),
    "the same, one of them handed over": ([*plans_of(alone=0.02, net=0.03), QUICK_TREES], {"single": True}),
    "the same, limits of size": ([*plans_of(rate=0.0005, alone=0.1, net=0.03), QUICK_TREES], {"max_latency": 1000.0}),
    "a reference that is at its end": (
        [linear_plan("alone", "reference", rate=0.3, delay=0.005), *plans_of(rate=0.001, _=0.0, net=0.05)[1:]],
        {},
    ),
    "one model": (plans_of(alone=0.02, fast=0.02), {"single": True}),
    "the cheaper model": (plans_of(alone=0.02, fast=0.01), {"prefer": "cost"}),
    "no model of all rows": (plans_of(alone=0.02, fast=0.02), {"refit": False}),
    "one seed": (plans_of(alone=0.02, fast=0.02), {"seeds": 1}),
    "two seeds": (plans_of(alone=0.02, fast=0.02), {"seeds": 2}),
    "a first look": (plans_of(alone=0.02, fast=0.02), {"preset": "quick", "seeds": None}),
    "a long look": (plans_of(alone=0.02, fast=0.02), {"preset": "best", "seeds": None}),
    "folds": (plans_of(alone=0.01, fast=0.02), {"folds": 5, "suite": drawn_suite()}),
    "folds at their end": (plans_of(improving=False, rate=0.3, alone=0.002, fast=0.002), {"folds": 5, "suite": drawn_suite()}),
    "many tasks": (plans_of(alone=0.05, fast=0.02), {"suite": many_tasks()}),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("name", RACES)
def test_a_race_uses_its_time(clock: Clock, tmp_path: Path, name: str, limit: float) -> None:
    plans, settings = RACES[name]
    run, seconds = raced(clock, tmp_path / "run", plans, limit, **settings)
    assert_used(run, seconds, limit)
    assert run.choice


@pytest.mark.parametrize("pace", [0.4, 2.5])
def test_steps_that_cost_something_else_than_they_did_at_first(clock: Clock, tmp_path: Path, pace: float) -> None:
    def change(event: dict[str, Any]) -> None:
        # The machine gets faster or slower once the schedule is made.
        if event["event"] == "schedule":
            clock.pace = pace

    run, seconds = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.03), 300.0, on_event=change)
    assert_used(run, seconds, 300.0)


@pytest.mark.parametrize(("pace", "rows"), [(1.3, "all"), (1.8, "all"), (6.0, "training")])
@pytest.mark.parametrize("settings", [{}, {"single": True}, {"seeds": 1}])
def test_models_of_all_rows_on_a_machine_that_got_slower(
    clock: Clock, tmp_path: Path, settings: dict[str, Any], pace: float, rows: str
) -> None:
    def change(event: dict[str, Any]) -> None:
        if event["event"] == "phase" and event["phase"] == "whole":
            clock.pace = pace

    run, seconds = raced(clock, tmp_path / "run", plans_of(alone=0.02, fast=0.03), 120.0, on_event=change, **settings)
    assert LEAST * 120.0 <= seconds <= MOST * 120.0
    assert run.result["model"]["rows"] == rows, "more was planned than fits, but not at the expense of the model"


def test_what_has_converged_is_not_kept_waiting(clock: Clock, tmp_path: Path) -> None:
    run, seconds = raced(clock, tmp_path / "run", plans_of(improving=False, rate=0.3, alone=0.002, fast=0.002), 3600.0)
    assert seconds < 0.5 * 3600.0
    assert has_converged(run)
    assert run.result["not_tested"] == [], "nothing was given up"
    assert "it ended early, since nothing improved any more" in (tmp_path / "run" / "report.html").read_text()


def test_longer_trainings_that_were_no_better_are_not_repeated_without_end(clock: Clock, tmp_path: Path) -> None:
    # They say that they improve, and do not: 3000 steps are enough for both.
    run, seconds = raced(clock, tmp_path / "run", plans_of(alone=0.002, fast=0.001), 300.0)
    assert_used(run, seconds, 300.0)
    assert has_converged(run)
    assert run.result["model"]["longer"] == {}


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


def test_other_finalists_learn_from_all_rows_as_well(clock: Clock, tmp_path: Path) -> None:
    plans, settings = RACES["the same, one of them handed over"]
    run, _ = raced(clock, tmp_path / "run", plans, 300.0, **settings)
    assert run.choice == "trees"
    kept = run.result["kept_plans"]["kept"]
    assert {name: kept[name]["rows"] for name in ("alone", "net")} == {"alone": "all", "net": "all"}
    assert all(name.startswith(f"whole-{plan}-") for plan in ("alone", "net") for name in kept[plan]["trainings"])


def test_a_run_that_was_stopped_among_its_last_trainings_comes_to_the_same_model(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions: list[FitSession] = []
    original = FitSession.go

    def go(session: FitSession, **settings: Any) -> Any:
        sessions.append(session)
        return original(session, **settings)

    monkeypatch.setattr(FitSession, "go", go)
    plans = plans_of(alone=0.02, fast=0.03)
    whole, _ = raced(clock, tmp_path / "whole", plans, 120.0)
    assert whole.result["model"]["models"] > 1
    assert whole.result["model"]["longer"]

    def press(event: dict[str, Any]) -> None:
        if event["event"] == "job-end" and event["job"] == whole.result["model"]["trainings"][0]:
            sessions[-1].stop.press()

    with pytest.raises(RunStopped):
        raced(clock, tmp_path / "run", plans, 120.0, on_event=press)
    resumed = fit(out=tmp_path / "run", resume=True)
    for key in ("model", "verdict", "attempts"):
        assert resumed.result[key] == whole.result[key]


def test_one_step_may_take_long(clock: Clock, tmp_path: Path) -> None:
    # A step of a twentieth of the limit cannot be interrupted: what runs at the end of the time ends its step.
    _, seconds = raced(clock, tmp_path / "run", plans_of(alone=3.0, fast=3.0), 60.0)
    assert seconds <= MOST * 60.0 + 3.0
