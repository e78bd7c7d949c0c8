"""How many models of all rows the time that is left suffices for, how long each trains, and what is kept for them before."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.records import Plan, TaskSpec
from graftwork.workflows.fit import handover as handover_module
from graftwork.workflows.fit import reserve, whole_models, whole_others
from graftwork.workflows.fit.attempts import plan_seconds
from graftwork.workflows.fit.handover import at_hand, handover
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.fit.reserve import likely_choices, reserved_seconds
from graftwork.workflows.fit.untested import would_gain
from graftwork.workflows.fit.whole_models import BAG, LONGEST, TENTHS, WholeModels
from graftwork.workflows.fit.whole_others import others_on_all_rows
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.schedule import NO_SCHEDULE

LIMIT = 100.0
SECONDS = {"net": 10.0, "other": 4.0, "linear": 1.0}
"""Of a training."""


def plan(name: str, **training: Any) -> Plan:
    made = Plan(name=name, title=name, role="joint" if name != "other" else "reference", modalities=("table",))
    return made.with_train(training=training)


PLANS = {"net": plan("net"), "other": plan("other"), "linear": plan("linear", max_steps=1)}


class Run:
    """A run folder in memory, with one finished final of each plan."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.state: dict[str, Any] = {"estimates": {}}
        self.scores = scores

    def save(self, **changes: Any) -> None:
        self.state |= changes

    def result(self, job: str) -> dict[str, Any] | None:
        name = job.split("-")[1]
        validation = {"y": {"rmse": self.scores[name]}}
        return {"status": "ok", "seconds": SECONDS[name], "steps": 100, "validation": validation, "still_improving": True}

    def emit(self, *_: Any, **__: Any) -> None:
        """Say nothing."""


def context_of(monkeypatch: pytest.MonkeyPatch, left: float | None = 50.0, *, folds: int = 0, **settings: Any) -> Any:
    """Return a run with so many seconds until 96 % of its limit."""
    asked = {"refit": True, "single": False, "prefer": "score", "num_workers": 1, "weights": {}, "time_limit": LIMIT}
    asked |= dict.fromkeys(("max_params", "max_latency", "max_memory")) | settings
    schedule = dataclasses.replace(NO_SCHEDULE, horizons={"net": 100, "other": 100, "linear": 1}, refits=1)
    context: Any = SimpleNamespace(
        plans=PLANS,
        schedule=schedule,
        maker=JobMaker(plans=PLANS, facts=RunFacts(cache="cache", folds=folds), schedule=schedule),
        settings=SimpleNamespace(**asked),
        suite=SimpleNamespace(
            splits={"train": range(60), "val": range(20), "test": range(20)},
            tasks=(TaskSpec(name="y", kind="regression", size=1),),
            kinds=("table",),
        ),
        run=Run({"net": 0.5, "other": 0.52, "linear": 2.0}),
    )

    def seconds_left(_: Any, share: float = 0.96) -> float | None:
        return None if left is None else max(0.0, left + (share - 0.96) * LIMIT)

    for module in (whole_models, whole_others, reserve):
        monkeypatch.setattr(module, "seconds_left", seconds_left)
    return context


def finals(context: Any, *names: str) -> dict[str, dict[int, Any]]:
    return {name: {0: context.maker.final(name, 0)} for name in names}


def planned(context: Any, *names: str, improving: tuple[str, ...] = ()) -> WholeModels:
    weights = {name: {"y": 1.0 / len(names)} for name in names}
    return whole_models.whole_models(context, weights, finals(context, *names), improving)


@pytest.mark.parametrize(
    ("left", "members", "parts"),
    [(9.0, 1, 1), (19.0, 1, 1), (20.0, 2, TENTHS), (41.0, 4, TENTHS), (55.0, BAG, BAG), (90.0, BAG, BAG)],
)
def test_as_many_models_as_there_is_time_for(monkeypatch: pytest.MonkeyPatch, left: float, members: int, parts: int) -> None:
    assert planned(context_of(monkeypatch, left), "net") == WholeModels(members=members, parts=parts)


@pytest.mark.parametrize(
    ("left", "members", "longer"), [(9.0, 1, 1.0), (17.0, 1, 1.7), (24.0, 1, 2.4), (26.0, 2, 1.3), (200.0, BAG, LONGEST)]
)
def test_models_of_plans_that_improve_train_longer_before_there_are_more(
    monkeypatch: pytest.MonkeyPatch, left: float, members: int, longer: float
) -> None:
    found = planned(context_of(monkeypatch, left), "net", improving=("net",))
    assert (found.members, found.longer) == (members, pytest.approx(longer, abs=0.011))


def test_a_longer_training_ends_in_time_on_a_slower_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # 80 s until 96 %, 8 more at most: a training of 80 s would end too late if it took a fifth more than expected.
    found = planned(context_of(monkeypatch, 80.0, single=True), "other", "net", improving=("net", "other"))
    assert 1.25 * 14.0 * found.longer <= 88.0
    assert found.longer == LONGEST
    alone = planned(context_of(monkeypatch, 22.0, single=True), "net", improving=("net",))
    assert alone.longer == pytest.approx(2.2, abs=0.011)


@pytest.mark.parametrize(
    "settings", [{"single": True}, {"prefer": "cost"}, {"max_params": 10}, {"max_latency": 1.0}, {"max_memory": 10}]
)
def test_one_model_where_several_are_not_wanted(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> None:
    assert planned(context_of(monkeypatch, 90.0, **settings), "net") == WholeModels(members=1, parts=1)


def test_fewer_models_of_folds_leave_out_as_few_rows_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(context_of(monkeypatch, 60.0, folds=5), "net") == WholeModels(members=5, parts=5)
    # 8 s more than what is left are there for them.
    assert planned(context_of(monkeypatch, 25.0, folds=5), "net") == WholeModels(members=3, parts=5)
    assert planned(context_of(monkeypatch, 3.0, folds=5), "net") == WholeModels(members=1, parts=1)


def test_what_is_fitted_in_one_go_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(context_of(monkeypatch, 90.0), "linear", improving=("linear",)) == WholeModels(members=1, parts=1)
    # 1 s of it, and 4 times 10 s.
    assert planned(context_of(monkeypatch, 42.0), "linear", "net").members == 4


def test_without_a_limit_it_is_as_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned(context_of(monkeypatch, None), "net", improving=("net",)) == WholeModels(members=1, parts=1)
    assert planned(context_of(monkeypatch, None, folds=5), "net") == WholeModels(members=5, parts=5)


def test_nothing_begins_long_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(monkeypatch, -9.0)
    assert planned(context, "net") == WholeModels()
    assert "decisions" not in context.run.state


def test_the_numbers_are_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(monkeypatch, 26.0)
    before = planned(context, "net", improving=("net",))
    monkeypatch.setattr(whole_models, "seconds_left", lambda *_: 5.0)
    assert planned(context, "net", improving=("net",)) == before
    context.run.state["decisions"]["longer on all rows"] = 1e9
    with pytest.raises(ValueError, match="times as long were decided"):
        planned(context, "net", improving=("net",))


def test_a_longer_training_that_was_cut_late_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(monkeypatch, 24.0)
    monkeypatch.setattr(handover_module, "see_a_part", lambda *_: False)
    # 240 steps were planned, the race made 100 and came to an error of 0.5.
    for steps, error, is_taken in ((200, 0.9, True), (150, 0.4, True), (150, 0.6, False), (90, 0.4, False)):
        answer = {"status": "ok", "cut": True, "steps": steps, "validation": {"y": {"rmse": error}}}
        context.run_jobs = lambda jobs, answer=answer, **_: {job.id: answer for job in jobs}
        given = handover(context, "net", "Net", {"net": {"y": 1.0}}, finals(context, "net"), {"net"})
        assert (given.trained[0].id == "whole-net-1of1-240steps") is is_taken, (steps, error)
        assert given.facts()["longer"] == ({"net": pytest.approx(2.4)} if is_taken else {})
        assert given.note


def test_other_finalists_learn_from_all_rows_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = RaceOutcome(finals=finals(context := context_of(monkeypatch, 12.0), "net", "other", "linear"))
    asked: list[str] = []

    def run_jobs(jobs: list[Any], **_: Any) -> dict[str, dict[str, Any]]:
        asked.extend(job.id for job in jobs)
        return {job.id: {"status": "ok", "cut": job.plan.name == "linear"} for job in jobs}

    context.run_jobs = run_jobs
    given = at_hand(context, "net", "Net", {"net": {"y": 1.0}}, outcome.finals, SimpleNamespace(whole=(), parts=0, trained=()))  # type: ignore[arg-type]
    made = others_on_all_rows(context, outcome, ["other", "linear", "net"], given, {"other"})
    # 12 s are too few for the network as well; what improves takes the rest.
    assert asked == ["whole-other-1of1-250steps", "whole-linear-1of1"]
    assert list(made) == ["other"], "what the end of the time cut is kept as the race made it"
    kept = at_hand(context, "other", "Other", {"other": {"y": 1.0}}, outcome.finals, given, made)
    assert (kept.facts()["rows"], kept.trained[0].id) == ("all", "whole-other-1of1-250steps")
    assert not others_on_all_rows(context_of(monkeypatch, 90.0, refit=False), outcome, ["other"], given)
    assert not others_on_all_rows(context_of(monkeypatch, 90.0, folds=5), outcome, ["other"], given)


def test_time_is_kept_for_plans_that_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(monkeypatch, 50.0)
    outcome = RaceOutcome(finals=finals(context, "net", "other", "linear"))
    assert likely_choices(context, outcome.finals) == ["net", "other"], "the other one is far behind on validation rows"
    rest = 3.0 + 4.0  # the verdict and the look at columns, shares of the limit
    assert reserved_seconds(context, outcome, []) == pytest.approx(0.75 * 14.0 + rest)
    assert reserved_seconds(context_of(monkeypatch, 50.0, single=True), outcome, []) == pytest.approx(10.0 + rest)
    assert reserved_seconds(context_of(monkeypatch, 50.0, refit=False), outcome, []) == pytest.approx(rest)
    outcome.control_plan = "net"
    checked = dataclasses.replace(context.schedule, control_seeds=2)
    context.schedule = checked
    assert reserved_seconds(context, outcome, ["y"]) == pytest.approx(0.75 * 14.0 + 24.0 + rest)


def test_longer_trainings_that_were_no_better_say_that_a_plan_is_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(monkeypatch)
    tried = [
        {"plan": "net", "longer": True, "taken": True},
        {"plan": "other", "longer": True, "taken": False},
        {"plan": "net", "longer": False, "taken": False},
    ]
    outcome = RaceOutcome(finals=finals(context, "net", "other"), attempts=tried)
    assert would_gain(context, outcome) == {"net"}


@pytest.mark.parametrize(
    ("result", "seconds"),
    [
        ({"seconds": 6.0, "steps": 100, "began": 50}, 12.0),
        ({"seconds": 6.0, "steps": 100, "began": 50, "ledger": {"wall_seconds": 11.0}}, 11.0),
        ({"seconds": 0.1, "steps": 100, "began": 100}, 0.1),
        ({"seconds": 6.0, "steps": 100}, 6.0),
    ],
)
def test_a_training_that_went_on_from_a_rung_took_longer_than_its_end(result: dict[str, Any], seconds: float) -> None:
    context: Any = SimpleNamespace(run=SimpleNamespace(result=lambda _: result))
    job: Any = SimpleNamespace(id="final-net-s0")
    assert plan_seconds(context, {0: job}) == pytest.approx(seconds)
