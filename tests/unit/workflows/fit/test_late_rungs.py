"""A race that runs out of time between its rungs still judges the plan that is ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from graftwork.core.files import write_json
from graftwork.core.records import Component, Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.suites.generated import conflicting_tasks
from graftwork.workflows.fit.race import Race
from graftwork.workflows.fit.replanning import race_budget, time_for_another_rung
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.effort import full_effort
from graftwork.workflows.runs.horizons import race_seconds
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.job import Job, RunFacts
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Schedule
from graftwork.workflows.runs.settings import FitSettings


def plan(name: str, role: str) -> Plan:
    sharing = f"graftwork.methods.sharing.{'separate:Separate' if role == 'reference' else 'shared_trunk:SharedTrunk'}"
    return Plan(name=name, title=name, role=role, modalities=("table",), stages=(TrainStage(sharing=Component(sharing)),))  # type: ignore[arg-type]


PLANS = {"separate": plan("separate", "reference"), "joint": plan("joint", "joint"), "slow": plan("slow", "joint")}
SUITE = conflicting_tasks(rows=120, seed=0)
ERRORS = {"separate": 1.0, "joint": 0.9, "slow": 0.5}


class Script:
    """Answers for the pool: which jobs end well, are stopped, or never begin; and how late it is."""

    def __init__(self, run: RunFolder, outcome: Mapping[str, str]) -> None:
        self.run_folder, self.outcome, self.asked = run, outcome, []  # type: ignore[var-annotated]

    def run(self, jobs: Sequence[Job], **_: Any) -> dict[str, dict[str, Any]]:
        self.asked.append([job.id for job in jobs])
        found = {}
        for job in jobs:
            status = self.outcome.get(job.id, "ok")
            if status == "never":
                continue
            validation = {task.name: dict.fromkeys(("rmse", "log_loss"), ERRORS[job.plan.name]) for task in SUITE.tasks}
            found[job.id] = {"status": status, "message": "", "steps": 5, "validation": validation, "horizon": 40, "seconds": 2.0}
            if status == "ok":
                write_json(self.run_folder.job(job.id) / "checkpoint.json", {"folder": "checkpoint-5", "step": 5})
        return found

    def close(self) -> None: ...


def context_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Mapping[str, str], *, left: float) -> tuple[Any, Script]:
    run = RunFolder(tmp_path)
    monkeypatch.setattr(RunFolder, "emit", lambda *_, **__: None)
    monkeypatch.setattr(RunFolder, "seconds_used", lambda _: 0.96 * 100.0 - left)
    monkeypatch.setattr(RunFolder, "save", lambda self, **changes: self.state.update(changes))
    costs = {name: Estimate(plan=name, seconds_per_step=0.1, steps_per_epoch=1.0).to_json() for name in PLANS}
    run.state = {"estimates": costs}
    schedule = Schedule(horizons=dict.fromkeys(PLANS, 40), seeds=(0,), control_seeds=0, control_tasks=0, finalists=1)
    pool = Script(run, outcome)
    context: Any = RunContext(
        run=run,
        settings=FitSettings(time_limit=100.0, workers=2),
        suite=SUITE,
        pool=pool,  # type: ignore[arg-type]
        stop=StopSwitch(),
        maker=JobMaker(facts=RunFacts(cache=""), plans=PLANS, schedule=schedule),
    )
    return context, pool


def test_a_plan_that_was_stopped_in_a_rung_keeps_its_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, pool = context_of(tmp_path, monkeypatch, {"rung2-slow": "stopped"}, left=60.0)
    outcome = Race(context).run()
    assert "rung2-slow" in pool.asked[1]
    assert "slow" in outcome.finals, "it was ahead, and failed in nothing"


def test_a_plan_that_failed_in_a_rung_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, _ = context_of(tmp_path, monkeypatch, {"rung2-slow": "diverged"}, left=60.0)
    assert "slow" not in Race(context).run().finals


def test_without_time_for_a_rung_the_finals_come_at_once_and_go_on_from_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, pool = context_of(tmp_path, monkeypatch, {"final-separate-s0": "never"}, left=0.5)
    race = Race(context)
    outcome = race.run()
    asked = [name for ids in pool.asked for name in ids]
    assert not any(name.startswith("rung2") for name in asked)
    # The plan that is ahead comes first, and one that never began is judged as it is.
    assert pool.asked[1][0] == "final-slow-s0"
    assert asked.count("final-separate-s0") == 2
    assert outcome.finals["slow"][0].continues == "rung1-slow"
    assert any("were cut or left out" in warning for warning in outcome.warnings)


def test_there_is_time_for_a_rung_while_finals_fit_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {name: Estimate(plan=name, seconds_per_step=0.1, steps_per_epoch=1.0) for name in PLANS}
    for left, expected in ((60.0, True), (0.5, False)):
        context, _ = context_of(tmp_path, monkeypatch, {}, left=left)
        context.run.state.pop("decisions", None)
        assert time_for_another_rung(context, list(PLANS), costs, control_tasks=0, rung=0) is expected


def test_finals_that_come_early_have_less_behind_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, _ = context_of(tmp_path, monkeypatch, {}, left=60.0)
    costs = {name: Estimate(plan=name, seconds_per_step=0.1, steps_per_epoch=1.0) for name in PLANS}

    def seconds(**more: Any) -> float:
        budget = race_budget(context, control_tasks=0, **more)
        return race_seconds(list(PLANS.values()), costs, dict.fromkeys(PLANS, 100), budget, full_effort(budget))

    assert seconds(rungs_done=2) < seconds(rungs_done=1, finals_next=True) < seconds(rungs_done=1)
