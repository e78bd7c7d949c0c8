"""Time for a verdict on many tasks is kept free: measured on some of them, and trainings end so much earlier."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import table_input
from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit import verdict_time
from graftwork.workflows.fit.verdict_time import reserve_verdict_time, verdict_seconds
from graftwork.workflows.runs.decisions import VERDICT, deadline, seconds_left

PLANS = [Plan(name="separate", title="t", role="reference", modalities=("table",))]
PLANS += [Plan(name=f"p{index}", title="t", role="joint", modalities=("table",)) for index in range(4)]


def suite_of(tasks: int, rows: int = 60) -> Suite:
    draw = np.random.default_rng(0)
    kinds = ["regression", "binary", "multiclass"]
    specs = [TaskSpec(name=f"t{index}", kind=kinds[index % 3], size=3 if index % 3 == 2 else 1) for index in range(tasks)]
    return Suite.of_arrays(
        name="many",
        input_specs=table_input(2),
        tasks=specs,
        inputs={"numeric": draw.normal(size=(rows, 2)).astype(np.float32), "categorical": np.zeros((rows, 0), np.int64)},
        targets={
            task.name: draw.normal(size=(rows, 1)).astype(np.float32)
            if task.kind == "regression"
            else draw.integers(0, max(2, task.size), size=rows)
            for task in specs
        },
        splits=dict(zip(("train", "val", "test"), np.split(np.arange(rows), [30, 40]), strict=True)),
    )


def context_of(suite: Suite, limit: float | None = 60.0, steps: int | None = None, folds: int = 0) -> Any:
    run = SimpleNamespace(state={}, seconds_used=lambda: 5.0, events=[])
    run.save = lambda **changes: run.state.update(changes)
    run.emit = lambda event, **fields: run.events.append((event, fields))
    settings = SimpleNamespace(time_limit=limit, steps=steps, seeds=3)
    return SimpleNamespace(suite=suite, run=run, settings=settings, maker=SimpleNamespace(facts=SimpleNamespace(folds=folds)))


def test_what_grows_with_the_tasks_is_told_from_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"now": 0.0}

    def judge(suite: Suite, arms: Any, resamples: int) -> None:
        cost["now"] = 0.5 + 0.01 * len(suite.tasks) * len(arms)

    def decide(suite: Suite) -> None:
        cost["now"] = 0.02 * len(suite.tasks)

    def seconds(action: Any) -> float:
        action()
        return cost["now"]

    monkeypatch.setattr(verdict_time, "_judge", judge)
    monkeypatch.setattr(verdict_time, "_decide", decide)
    monkeypatch.setattr(verdict_time, "_seconds", seconds)
    found = [verdict_seconds(suite_of(tasks), PLANS, runs=3, every_row=False) for tasks in (50, 200)]
    # Five plans, the average and the mixed plan, three trainings each.
    assert (found[1] - found[0]) / 150 == pytest.approx(1.3 * (7 * 3 * 0.01 + 0.02))


def test_real_verdicts_are_measured_for_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    judge = verdict_time._judge
    monkeypatch.setattr(
        verdict_time,
        "_judge",
        lambda suite, *rest: (seen.append((len(suite.tasks), len(suite.splits["test"]))), judge(suite, *rest)),
    )
    assert 0 < verdict_seconds(suite_of(15), PLANS, runs=1, every_row=True) < 1000
    assert seen[-1] == (12, 60), "in a cross-validation all rows are judged"


@pytest.mark.parametrize(
    ("tasks", "limit", "steps", "is_measured"),
    [(13, 60.0, None, True), (12, 60.0, None, False), (40, None, None, False), (40, 60.0, 8, False)],
)
def test_it_is_measured_once_and_only_where_it_matters(
    tasks: int, limit: float | None, steps: int | None, is_measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(verdict_time, "verdict_seconds", lambda *_, **fields: calls.append(fields) or 20.0)
    context = context_of(suite_of(tasks), limit, steps)
    for _ in range(2):
        reserve_verdict_time(context, PLANS)
    assert len(calls) == is_measured
    assert (context.run.state.get("decisions", {}).get(VERDICT) == 20.0) == is_measured


def test_what_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> float:
        raise ValueError("odd answers")

    monkeypatch.setattr(verdict_time, "verdict_seconds", fails)
    context = context_of(suite_of(20))
    reserve_verdict_time(context, PLANS)
    assert context.run.state["decisions"][VERDICT] == 0.0
    assert "odd answers" in context.run.events[0][1]["message"]


def test_trainings_end_so_much_earlier() -> None:
    assert deadline({}, 60.0) == pytest.approx(57.6)
    assert deadline({"decisions": {VERDICT: 2.0}}, 60.0) == pytest.approx(57.6), "what is left is enough"
    assert deadline({"decisions": {VERDICT: 22.4}}, 60.0) == pytest.approx(37.6)
    assert deadline({"decisions": {VERDICT: 900.0}}, 60.0) == pytest.approx(33.6), "something must be trained"
    context = context_of(suite_of(3))
    assert seconds_left(context) == pytest.approx(52.6)
    context.run.state["decisions"] = {VERDICT: 22.4}
    assert seconds_left(context) == pytest.approx(32.6)
    assert seconds_left(context, 0.9) == pytest.approx(29.0)
