"""One ``compare`` from data to leaderboard: open, choose plans, fix the budget, train, judge, report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graftwork.core.files import read_json, write_json
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.compare.budget import make_budget
from graftwork.workflows.compare.finish import finish_comparison
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.compare.trainings import run_trainings
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.runs.auto_groups import resolve_groupings
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.pool import InlinePool, WorkerPool, make_pool
from graftwork.workflows.runs.preparation import choose_backbone, choose_plans, job_maker, machine_facts, open_run_suite
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Schedule

__all__ = ["CompareSession"]


class CompareSession:
    """Runs or resumes one ``compare`` in its folder.

    Args:
        run: The run folder, created or opened, locked.
        settings: What the user asked for.
        data: What the caller handed in; None reads ``settings.source``.
    """

    def __init__(self, run: RunFolder, settings: CompareSettings, data: Any = None) -> None:
        self.run, self.settings, self._data = run, settings, data
        self.stop = StopSwitch()

    def go(self) -> dict[str, Any]:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
            GraftworkError: If nothing could be trained.
        """
        clock = self.run.path / "clock.json"
        self.run.start_clock(float(read_json(clock)["seconds"]) if clock.exists() else 0.0)
        with self.stop.listen():
            self.stop.on_press = lambda presses: self.run.emit("stopping", presses=presses)
            suite = open_run_suite(self.run, self.settings, self._data)
            self._pause_point()
            asked = self.settings.num_workers if self.settings.engine == "local" else self.settings.workers or 0
            pool = make_pool(self.run.path, asked, engine=self.settings.engine)
            try:
                result = self._train_and_judge(suite, pool)
            finally:
                pool.close()
                write_json(clock, {"seconds": round(self.run.seconds_used(), 1)})
        self.run.save(state="done")
        for folder in (self.run.path / "jobs").iterdir():
            self.run.drop_checkpoint(folder.name)
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def _train_and_judge(self, suite: Suite, pool: WorkerPool | InlinePool) -> dict[str, Any]:
        if "schedule" not in self.run.state:
            self._fix_budget(suite, pool)
        else:
            check_stored(map(Plan.from_json, self.run.state["plans"]), f"The run in {self.run.path}")
        state = self.run.state
        schedule = Schedule.from_json(state["schedule"])
        plans = {value["name"]: Plan.from_json(value) for value in state["plans"]}
        self.run.emit("budget", **state["schedule"], workers=max(1, self.settings.num_workers), engine=self.settings.engine)
        maker = job_maker(self.run, self.settings, plans, schedule)
        measured = state.get("grouping")
        trained = run_trainings(self.run, suite, plans, schedule, maker, pool, self.stop, with_affinity=measured is None)
        self._pause_point()
        if measured is not None:
            trained.affinity, trained.gradients = measured["affinity"], measured["gradients"]
        return finish_comparison(self.run, self.settings, suite, plans, schedule, trained)

    def _fix_budget(self, suite: Suite, pool: WorkerPool | InlinePool) -> None:
        """Choose plans, measure groups and costs where they are needed, fix every plan's steps, and store all of it."""
        settings = self.settings
        plans = choose_plans(self.run, settings, suite)
        backbone, reason = choose_backbone(settings, suite.kinds)
        left_out = {plan.name: reason for plan in plans if plan.source == "pretrained" and not backbone}
        self.run.save(backbone=backbone)
        maker = job_maker(
            self.run, settings, {plan.name: plan for plan in plans}, Schedule(horizons={}, seeds=(), control_seeds=1)
        )
        racing = [plan for plan in plans if plan.name not in left_out]
        resolved, reasons, measured = resolve_groupings(self.run, suite, racing, maker, pool, self.stop, settings.steps)
        self._pause_point()
        left_out |= reasons
        known = {plan.name: plan for plan in resolved}
        racing = [plan for plan in resolved if plan.name not in left_out]
        estimates = None
        if settings.steps is None:
            estimates = estimate_plans(self.run, racing, settings, maker, pool, self.stop)
            self._pause_point()
            left_out |= {name: estimate.reason for name, estimate in estimates.items() if not estimate.kept}
            racing = [plan for plan in racing if plan.name not in left_out]
        schedule = make_budget(
            racing, steps=settings.steps, seconds=settings.time_limit, seeds=range(settings.seeds), estimates=estimates
        )
        schedule = replace(schedule, left_out={**left_out, **schedule.left_out})
        self.run.save(
            state="scheduled",
            plans=[known.get(plan.name, plan).to_json() for plan in plans],
            schedule=schedule.to_json(),
            estimates={name: estimate.to_json() for name, estimate in (estimates or {}).items()},
            grouping=measured,
            machine=machine_facts(),
        )

    def _pause_point(self) -> None:
        self.stop.raise_if_pressed(str(self.run.path), "compare")
