"""One ``fit`` from data to result: open, estimate, schedule, race, verdict, model, report; each step stored before the next
begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.files import read_json, write_json
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.fit.finish import finish_run
from graftwork.workflows.fit.race import MAX_CONTROL_TASKS, Race
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.quantities import format_seconds
from graftwork.workflows.runs.auto_groups import resolve_groupings
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.interrupts import StopSwitch
from graftwork.workflows.runs.plan_jobs import JobMaker
from graftwork.workflows.runs.pool import InlinePool, WorkerPool, make_pool
from graftwork.workflows.runs.preparation import choose_backbone, choose_plans, job_maker, machine_facts, open_run_suite
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.schedule import Estimate, Schedule, make_schedule, shared_plans
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["FitSession"]

BUDGET_SHARE = 0.85
"""Share of the time limit that the schedule plans to use; the rest is for what estimates do not see."""
DEADLINE_SHARE = 0.96
"""Share of the time limit at which trainings are cut; the rest is for the verdict."""


class FitSession:
    """Runs or resumes one ``fit`` in its folder.

    Args:
        run: The run folder, created or opened, locked.
        settings: What the user asked for.
        data: A DataFrame, a Suite or whatever else :func:`graftwork.data.reading.ingest.open_suite` takes; None reads
            ``settings.source``.
    """

    def __init__(self, run: RunFolder, settings: FitSettings, data: Any = None) -> None:
        self.run, self.settings = run, settings
        self._data = data
        self.stop = StopSwitch(self._is_late)
        self._clock_saved = 0.0

    def go(self, *, dry_run: bool = False) -> dict[str, Any] | None:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``; None after a dry run.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
        """
        clock = self.run.path / "clock.json"
        self.run.start_clock(float(read_json(clock)["seconds"]) if clock.exists() else 0.0)
        with self.stop.listen():
            self.stop.on_press = lambda presses: self.run.emit("stopping", presses=presses)
            suite = self._open_suite()
            self._pause_point()
            pool = make_pool(self.run.path, self.settings.num_workers)
            try:
                if "schedule" not in self.run.state:
                    self._plan_race(suite, pool)
                    self._pause_point()
                else:
                    check_stored(map(Plan.from_json, self.run.state["plans"]), f"The run in {self.run.path}")
                schedule = Schedule.from_json(self.run.state["schedule"])
                plans = {value["name"]: Plan.from_json(value) for value in self.run.state["plans"]}
                self.run.emit("schedule", **self.run.state["schedule"], workers=max(1, self.settings.num_workers))
                if dry_run:
                    return None
                maker = self._maker(plans, schedule)
                outcome = Race(self.run, suite, plans, schedule, maker, pool, self.stop).run()
                self._pause_point()
                if not outcome.history:
                    self._raise_too_late()
                result = finish_run(self.run, self.settings, suite, plans, schedule, maker, outcome, pool, self.stop)
                self._pause_point()
            finally:
                pool.close()
                self._save_clock()
        self.run.save(state="done")
        self._drop_checkpoints(keep=f"final-{result['verdict']['choice']}-")
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def _raise_too_late(self) -> None:
        """Forget the schedule, which was made for a time that is gone: a resume with more time makes another."""
        del self.run.state["schedule"]
        self.run.save(state="suite")
        raise GraftworkError(
            f"The time limit of {format_seconds(self.settings.time_limit or 0)} was used up before any plan was trained. "
            f"Give more: graftwork fit --resume {self.run.path} --time-limit 10m"
        )

    def _drop_checkpoints(self, keep: str) -> None:
        """Remove the checkpoints of a finished run but those of the chosen plan, from which the model can be exported again."""
        for folder in (self.run.path / "jobs").iterdir():
            if not folder.name.startswith(keep):
                self.run.drop_checkpoint(folder.name)

    def _is_late(self) -> bool:
        """Whether the time limit is nearly used up; also remembers the time used, for a resume after a kill."""
        limit = self.settings.time_limit
        if limit is None:
            return False
        if self.run.seconds_used() - self._clock_saved > 5.0:
            self._save_clock()
        return self.run.seconds_used() > DEADLINE_SHARE * limit

    def _save_clock(self) -> None:
        self._clock_saved = self.run.seconds_used()
        write_json(self.run.path / "clock.json", {"seconds": round(self._clock_saved, 1)})

    def _pause_point(self) -> None:
        self.stop.raise_if_pressed(str(self.run.path))

    def _open_suite(self) -> Suite:
        return open_run_suite(self.run, self.settings, self._data)

    def _plan_race(self, suite: Suite, pool: WorkerPool | InlinePool) -> None:
        """Choose plans, estimate their costs, decide the schedule, and store all of it."""
        plans = choose_plans(self.run, self.settings, suite)
        backbone, reason = choose_backbone(self.settings, suite.kinds)
        left_out = {plan.name: reason for plan in plans if plan.source == "pretrained" and not backbone}
        racing = [plan for plan in plans if plan.name not in left_out]
        self.run.save(backbone=backbone)
        maker = self._maker({plan.name: plan for plan in racing}, Schedule(horizons={}, seeds=(), control_seeds=1))
        resolved, reasons, _ = resolve_groupings(self.run, suite, racing, maker, pool, self._user_stop, self.settings.steps)
        self._pause_point()
        left_out |= reasons
        plans = [{plan.name: plan for plan in resolved}.get(plan.name, plan) for plan in plans]
        racing = [plan for plan in resolved if plan.name not in reasons]
        estimates = estimate_plans(self.run, racing, self.settings, maker, pool, self._user_stop)
        self._pause_point()
        kept = [plan for plan in racing if estimates[plan.name].kept]
        limit = self.settings.time_limit
        controls = min(len(suite.tasks), MAX_CONTROL_TASKS) if shared_plans(kept) else 0
        schedule = make_schedule(
            kept,
            estimates,
            seeds=list(range(self.settings.seeds)),
            steps=self.settings.steps,
            seconds=None if limit is None else max(1.0, BUDGET_SHARE * limit - self.run.seconds_used()),
            workers=max(1, self.settings.num_workers),
            control_tasks=controls,
        )
        left_out |= schedule.left_out
        stored = {}
        for plan in plans:
            estimate = estimates.get(plan.name, Estimate(plan=plan.name))
            if plan.name in left_out:
                estimate = replace(estimate, kept=False, reason=left_out[plan.name])
            horizon = schedule.horizons.get(plan.name, 0)
            stored[plan.name] = {
                **estimate.to_json(),
                "seconds": estimate.seconds(horizon) if horizon else 0.0,
                "horizon": horizon,
            }
            self.run.emit("estimate", **stored[plan.name])
        self.run.save(
            state="scheduled",
            estimates=stored,
            plans=[plan.to_json() for plan in plans],
            schedule=schedule.to_json(),
            machine=machine_facts(),
        )

    def _user_stop(self) -> Any:
        """While estimating, only the user stops: without estimates there is nothing to cut."""
        return self.stop() if self.stop.presses else None

    def _maker(self, plans: Mapping[str, Plan], schedule: Schedule) -> JobMaker:
        return job_maker(self.run, self.settings, plans, schedule)
