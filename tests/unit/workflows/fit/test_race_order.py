"""Whose finals come first: cheap plans, and the one that is ahead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.workflows.fit import cheap_finalists as module
from graftwork.workflows.fit.cheap_finalists import leading_finalist
from graftwork.workflows.runs.plan_costs import Estimate


def _context(seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "seconds_left", lambda _: seconds)
    monkeypatch.setattr(module, "decided", lambda _, __, decide: decide())
    return SimpleNamespace(
        schedule=SimpleNamespace(horizons={"net": 100, "trees": 10}, seeds=(0, 1, 2)), settings=SimpleNamespace(num_workers=2)
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
