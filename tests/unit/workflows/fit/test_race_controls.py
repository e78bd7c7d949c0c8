"""Which plan of the race gets the control with shuffled companions, and what is judged where the time was short."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from graftwork.core.files import write_json
from graftwork.core.records import Plan
from graftwork.workflows.fit import race as module
from graftwork.workflows.fit.race import Race
from graftwork.workflows.portfolio import load_catalogue
from graftwork.workflows.runs.job import RunFacts
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Schedule


@pytest.mark.parametrize(("plan", "tasks"), [("esmm", []), ("shared-trunk", ["click", "purchase"])])
def test_a_plan_that_needs_the_labels_dependence_has_no_control(
    monkeypatch: pytest.MonkeyPatch, plan: str, tasks: list[str]
) -> None:
    entries = load_catalogue()
    names = ["separate", plan]
    suite: Any = SimpleNamespace(tasks=("click", "purchase"), task_names=("click", "purchase"))
    plans = {name: entries[name].plan for name in names}
    schedule, maker = SimpleNamespace(control_seeds=1, control_tasks=8), SimpleNamespace(facts=SimpleNamespace(folds=0))
    context: Any = SimpleNamespace(run=None, suite=suite, plans=plans, schedule=schedule, maker=maker, stop=None)
    race = Race(context)
    monkeypatch.setattr(module, "task_changes", lambda *_: {"click": 4.0, "purchase": 3.0})
    scores = {"separate": 0.0, plan: 1.0}
    assert race._control_plan_and_tasks(names, scores, {name: {"validation": {}} for name in names}) == tasks
    assert race.outcome.control_plan == plan, "its task affinity is measured all the same"
    assert bool(race.outcome.warnings) is not bool(tasks)
    assert all("`esmm` builds on how the labels" in warning for warning in race.outcome.warnings)


@pytest.mark.parametrize(
    ("kept", "continues", "horizon"), [("rung2-a", "rung2-a", 40), ("rung1-a", "rung1-a", 40), ("", None, 0)]
)
def test_a_finalist_is_judged_from_what_it_has_with_the_horizon_that_this_was_made_for(
    tmp_path: Path, kept: str, continues: str | None, horizon: int
) -> None:
    run = RunFolder(tmp_path)
    plan = Plan(name="a", title="", role="joint", modalities=("table",))
    # Planned anew after the rung: 99 steps in place of 40.
    schedule = Schedule(horizons={"a": 99}, seeds=(0,), control_seeds=0)
    maker = JobMaker(facts=RunFacts(cache="", race_rows=500), plans={"a": plan}, schedule=schedule)
    if kept:
        write_json(run.job(kept) / "checkpoint.json", {"folder": "checkpoint-10", "step": 10})
        write_json(run.job(kept) / "result.json", {"status": "ok", "horizon": 40})
    context: Any = SimpleNamespace(run=run, maker=maker)
    job = Race(context)._judged_as_it_is("a", maker.final("a", 0))
    assert (job and job.continues) == continues
    if job is not None:
        assert (job.max_steps, job.rows, job.until, job.cut) == (horizon, 500, 0, True)


def test_a_final_that_was_cut_is_handed_on_as_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever exports it loads its checkpoint, which belongs to the horizon and the rows of the rung that it was judged from."""
    plan = Plan(name="a", title="", role="joint", modalities=("table",))
    schedule = Schedule(horizons={"a": 99}, seeds=(0,), control_seeds=0)
    maker = JobMaker(facts=RunFacts(cache="", race_rows=500), plans={"a": plan}, schedule=schedule)
    monkeypatch.setattr(module, "rung_scores", lambda *_: {})
    settings: Any = SimpleNamespace(weights={})
    context: Any = SimpleNamespace(run=RunFolder(tmp_path), maker=maker, suite=None, plans={"a": plan}, settings=settings)
    race, job = Race(context), maker.final("a", 0)
    result = {"status": "ok", "steps": 14, "horizon": 40, "most_rows": 300, "cut": True, "validation": {}}
    assert race._collect_finals([("a", 0, job)], {job.id: result}) == 1
    kept = race.outcome.finals["a"][0]
    assert (kept.id, kept.max_steps, kept.rows, kept.cut) == (job.id, 40, 300, True)


@pytest.mark.parametrize(
    ("finished", "first", "less"),
    [
        (["constant"], "net", True),
        (["constant"], "constant", False),
        (["constant"], None, False),
        (["constant", "net"], "net", False),
    ],
)
def test_a_finished_constant_does_not_replace_a_better_first_model(
    finished: list[str], first: str | None, less: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = {
        name: Plan(
            name=name, title=name, role="independent", group="baseline" if name == "constant" else "", modalities=("table",)
        )
        for name in ("constant", "net")
    }
    context: Any = SimpleNamespace(plans=plans)
    race = Race(context)
    race.outcome.finals = {name: {} for name in finished}
    job = None if first is None else SimpleNamespace(plan=plans[first])
    monkeypatch.setattr(module, "fallback_job", lambda _: job)
    assert race._is_less_than_a_first_model() is less
