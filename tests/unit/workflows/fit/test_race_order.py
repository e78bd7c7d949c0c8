"""Whose finals come first: cheap plans, and the one that is ahead."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.records import Plan
from graftwork.workflows.fit import cheap_finalists as module
from graftwork.workflows.fit.cheap_finalists import cheap_finalists, leading_finalist
from graftwork.workflows.runs.plan_costs import Estimate


def _context(seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "seconds_left", lambda _: seconds)
    monkeypatch.setattr(module, "decided", lambda _, __, decide: decide())
    return SimpleNamespace(
        plans={"net": _own("net", 100), "trees": _own("trees", 10), "linear": _own("linear", 1)},
        schedule=SimpleNamespace(horizons={"net": 100, "trees": 10, "linear": 1}, seeds=(0, 1, 2), final_rows=0),
        settings=SimpleNamespace(num_workers=2),
        maker=SimpleNamespace(facts=SimpleNamespace(race_rows=0, folds=0)),
    )


COSTS = {
    name: Estimate(plan=name, seconds_per_step=seconds, setup_seconds=0.0, eval_seconds=0.0, steps_per_epoch=1.0)
    for name, seconds in (("net", 0.1), ("trees", 0.2))
}


def test_the_plan_that_is_ahead_comes_first_if_it_leaves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"net": 0.0, "trees": 70.0}
    assert leading_finalist(_context(30.0, monkeypatch), ["net", "trees"], scores, COSTS) == ["trees"]
    # Three trainings of ten seconds on two cores are more than two fifths of 30 seconds.
    assert leading_finalist(_context(30.0, monkeypatch), ["net", "trees"], {"net": 9.0, "trees": 0.0}, COSTS) == []
    assert leading_finalist(_context(60.0, monkeypatch), ["net", "trees"], {"net": 9.0, "trees": 0.0}, COSTS) == ["net"]


def test_without_a_limit_or_a_score_nobody_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leading_finalist(_context(None, monkeypatch), ["net", "trees"], {"net": 1.0}, COSTS) == []
    assert leading_finalist(_context(30.0, monkeypatch), ["net"], {}, COSTS) == []


def test_a_lone_final_of_the_leader_comes_first_if_the_rest_of_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    context = _context(7.0, monkeypatch)
    context.schedule.seeds = (0,)
    # Half of ten seconds are behind; the other plan is judged as far as it came.
    assert leading_finalist(context, ["net", "trees"], {"net": 9.0, "trees": 0.0}, COSTS) == ["net"]
    context = _context(6.0, monkeypatch)
    context.schedule.seeds = (0,)
    assert leading_finalist(context, ["net", "trees"], {"net": 9.0, "trees": 0.0}, COSTS) == []


def test_a_leader_that_is_fitted_in_one_go_is_made_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear models on features that took 13 s were ahead, and were not judged, since 13 s more seemed to be needed."""
    scores, cost = {"net": 0.0, "linear": 170.0}, Estimate(plan="linear", setup_seconds=13.0, eval_seconds=1.0)
    context = _context(5.0, monkeypatch)
    context.schedule.seeds = (0,)
    assert leading_finalist(context, ["net", "linear"], scores, {**COSTS, "linear": cost}) == ["linear"]
    context.maker.facts.race_rows = 30_000
    assert leading_finalist(context, ["net", "linear"], scores, {**COSTS, "linear": cost}) == [], "all rows are more"
    context = _context(5.0, monkeypatch)
    assert leading_finalist(context, ["net", "linear"], scores, {**COSTS, "linear": cost}) == [], "other seeds are fitted anew"


def _own(name: str, steps: int) -> Plan:
    return Plan(name=name, title=name, role="independent", modalities=("table",)).with_train(training={"max_steps": steps})


def _result(seconds: float, steps: int, horizon: int) -> dict[str, Any]:
    return {"status": "ok", "steps": steps, "horizon": horizon, "ledger": {"wall_seconds": seconds}}


def _cheap(left: float, seconds: dict[str, float], monkeypatch: pytest.MonkeyPatch, *, steps: int = 1) -> list[str]:
    context = _context(left, monkeypatch)
    context.plans = {name: _own(name, 1000 if name == "trees" else 1) for name in seconds}
    context.maker = SimpleNamespace(facts=SimpleNamespace(folds=5))
    results = {
        name: _result(one, steps if name == "trees" else 1, 1000 if name == "trees" else 1) for name, one in seconds.items()
    }
    costs = {
        name: Estimate(
            plan=name, setup_seconds=0.0 if name == "trees" else one, seconds_per_step=0.01 if name == "trees" else 0.0
        )
        for name, one in seconds.items()
    }
    return cheap_finalists(context, results, costs)


def test_boosted_trees_that_stopped_early_cost_what_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 300 rows they took 0.2 s and seemed to take 10 s, those of 1,000 rounds, and were in no average."""
    assert _cheap(30.0, {"trees": 0.2}, monkeypatch, steps=113) == ["trees"]
    # Stopped by the rung and not by themselves: more rounds are to come.
    assert _cheap(30.0, {"trees": 2.5}, monkeypatch, steps=250) == []


def test_the_cheapest_plans_are_finalists_while_they_take_a_small_part_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # Five trainings of each on two workers, and as many for what is handed over: 6 of 30 seconds.
    found = _cheap(30.0, {"forest": 0.8, "linear": 0.3, "kernel": 0.05, "chain": 4.0}, monkeypatch)
    assert found == ["kernel", "linear", "forest"]


def test_a_simple_baseline_is_always_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant was taken to cost the second that its worker took to start, and nothing was held against it."""
    context = _context(20.0, monkeypatch)
    context.plans = {"dear": _own("dear", 1), "constant": replace(_own("constant", 1), group="baseline")}
    costs = {name: Estimate(plan=name, setup_seconds=9.0) for name in context.plans}
    results = {name: _result(9.0, 1, 1) for name in context.plans}
    assert cheap_finalists(context, results, costs) == ["constant"]
