"""One ``fit`` from data to result: open, estimate, schedule, race, verdict, model, report; each step stored before the next
begins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.workflows.fit.backbone_choice import settled_backbone
from graftwork.workflows.fit.fallback import make_first_models, measured_first_fits
from graftwork.workflows.fit.finish import finish_run
from graftwork.workflows.fit.race import Race, max_control_tasks
from graftwork.workflows.fit.replanning import race_budget
from graftwork.workflows.fit.verdict_time import reserve_verdict_time
from graftwork.workflows.fit.warm_start import WarmStart, read_warm_start
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.quantities import format_seconds
from graftwork.workflows.runs.auto_groups import resolve_groupings
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import DEADLINE_SHARE, deadline, seconds_left
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.horizons import shared_plans
from graftwork.workflows.runs.plan_costs import Estimate
from graftwork.workflows.runs.preparation import (
    check_weights,
    choose_backbone,
    choose_plans,
    machine_facts,
    number_of_folds,
    rows_of_race,
)
from graftwork.workflows.runs.run_folder import clean_json
from graftwork.workflows.runs.schedule import Schedule, make_schedule
from graftwork.workflows.runs.session import RunSession
from graftwork.workflows.runs.settings import FitSettings
from graftwork.workflows.runs.working_size import at_working_size

__all__ = ["FitSession"]

OVER_SHARE = 1.03
"""Share of the time limit at which trainings that were cut and still work are ended."""
LEAST_GRACE = 5.0
"""Seconds that they are given at least."""
LAST_GRACE = 60.0
"""Seconds that they are given if the run has no model yet."""
ESTIMATE_SHARE = 0.2
"""Share of the time left that estimates may take together."""
GROUPING_SHARE = 0.1
"""Share of the time left that short trainings may take which find groups of tasks."""
_FIRST_MODEL = "first model"
"""State of a run that ended with nothing else."""
_KEPT_JOBS = ("first-", "estimate-")
"""What the jobs of first models and estimates are called: both hold whatever the time limit is."""
TRAINING = {"evaluations": 40, "patience": 0.3}
"""Training settings where the time decides how long trainings are; plans and users may say otherwise."""


class FitSession(RunSession[FitSettings]):
    """Runs or resumes one ``fit`` in its folder."""

    def go(self, *, dry_run: bool = False) -> dict[str, Any] | None:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``; None after a dry run.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
        """
        with self.opened() as context:
            if self.run.state["state"] == _FIRST_MODEL:
                self._begin_anew()
            if "schedule" not in self.run.state:
                self._plan_race(context)
                context.pause_point()
            else:
                check_stored(map(Plan.from_json, self.run.state["plans"]), f"The run in {self.run.path}")
            context = context.planned(
                map(Plan.from_json, self.run.state["plans"]), Schedule.from_json(self.run.state["schedule"])
            )
            self.run.emit("schedule", **self.run.state["schedule"], workers=max(1, self.settings.num_workers))
            if dry_run:
                # The lock is released and the state is kept: a later call with `--resume` races with this schedule.
                return None
            race = Race(context)
            outcome, context = race.run(), race.context
            context.pause_point()
            # No job ended at all, so there is nothing that a resume could keep.
            if not outcome.history and not outcome.finals:
                self._raise_too_late()
            result = finish_run(context, outcome)
            context.pause_point()
        # With more time a resume goes on where only a first model was made.
        self.run.save(state=_FIRST_MODEL if outcome.first_model else "done")
        # A prefix, so plans with a longer name may keep theirs as well; that costs space only.
        self._drop_checkpoints(keep=set(result["model"]["trainings"]))
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def _begin_anew(self) -> None:
        """Forget a race that ended with its first model: its schedule was made for a time that is gone, and its jobs would pass for
        those of the next race, though they were cut, or made fewer steps."""
        for folder in (self.run.path / "jobs").glob("*"):
            if not folder.name.startswith(_KEPT_JOBS):
                self.run.drop_job(folder.name)
        for key in ("schedule", "decisions"):
            self.run.state.pop(key, None)
        self.run.save(state="suite")
        # The next model may be of the same plan, which would pass for exported.
        (self.run.path / "model.onnx").unlink(missing_ok=True)

    def _raise_too_late(self) -> None:
        """Forget the schedule, which was made for a time that is gone: a resume with more time makes another."""
        del self.run.state["schedule"]
        self.run.save(state="suite")
        raise GraftworkError(
            f"The time limit of {format_seconds(self.settings.time_limit or 0)} was used up before any plan was trained. "
            f"Give more: graftwork fit --resume {self.run.path} --time-limit 10m"
        )

    def _drop_checkpoints(self, keep: Collection[str]) -> None:
        """Remove the checkpoints of a finished run but those from which the model can be exported again."""
        for folder in (self.run.path / "jobs").iterdir():
            if folder.name not in keep:
                self.run.drop_checkpoint(folder.name)

    def is_late(self) -> bool:
        """Return whether the time limit is nearly used up; also remembers the time used, for a resume after a kill."""
        limit = self.settings.time_limit
        if limit is None:
            return False
        # Not at every call: this is asked several times a second.
        if self.run.seconds_used() - self._clock_saved > 5.0:
            self.save_clock()
        return self.run.seconds_used() > deadline(self.run.state, limit)

    def is_over(self) -> bool:
        """Return whether what is cut at the end of the time has had its time, too."""
        limit = self.settings.time_limit
        if limit is None:
            return False
        grace = LEAST_GRACE if self._has_model() else LAST_GRACE
        # A verdict that takes long begins at its time.
        end, usual = deadline(self.run.state, limit), DEADLINE_SHARE * limit
        return self.run.seconds_used() > max(OVER_SHARE * limit - (usual - end), end + grace)

    def _has_model(self) -> bool:
        """Return whether anything was finished that could be handed over."""
        results = (self.run.result(file.parent.name) for name in ("first-*", "final-*") for file in self._results(name))
        return any(result is not None and result["status"] == "ok" for result in results)

    def _results(self, name: str) -> Iterator[Path]:
        return (self.run.path / "jobs").glob(f"{name}/result.json")

    def _warm_start(self, suite: Suite, race_rows: int) -> WarmStart | None:
        """Return what is taken from an older run, which is kept: a resume does not need that run."""
        if self.settings.warm_start is None:
            return None
        if "warm_start" not in self.run.state:
            train = len(suite.splits["train"])
            machine = machine_facts(self.run.state)
            found = read_warm_start(self.settings.warm_start, suite, min(train, race_rows or train), machine)
            self.run.save(warm_start=clean_json(found.to_json()))
        return WarmStart.from_json(self.run.state["warm_start"])

    def _plan_race(self, context: RunContext[FitSettings]) -> None:
        """Choose plans, make first models, estimate the plans' costs, decide the schedule, and store all of it."""
        suite = context.suite
        check_weights(self.settings, suite)
        plans = choose_plans(self.run, self.settings, suite)
        backbone, reason = choose_backbone(self.settings, suite.kinds)
        backbone = settled_backbone(context, backbone)
        backbone = at_working_size(backbone, self.settings, suite.input_specs, len(suite))
        left_out = {plan.name: reason for plan in plans if plan.source == "pretrained" and not backbone}
        racing = [plan for plan in plans if plan.name not in left_out]
        race_rows = rows_of_race(self.settings, suite)
        warm = self._warm_start(suite, race_rows)
        if warm is not None:
            plans, racing = warm.begun(plans), warm.begun(racing)
        self.run.save(
            backbone=backbone,
            folds=number_of_folds(self.settings, suite),
            race_rows=race_rows,
            # Fixed steps are made, all of them.
            training={} if self.settings.steps is not None else dict(TRAINING),
        )
        context = context.planned(racing)
        left = seconds_left(context)
        resolved, reasons, _ = resolve_groupings(
            context, racing, seconds=None if left is None else max(2.0, GROUPING_SHARE * left)
        )
        context.pause_point()
        left_out |= reasons
        # Plans that were left out stay in the list, so that the result can say why.
        plans = [{plan.name: plan for plan in resolved}.get(plan.name, plan) for plan in plans]
        racing = [plan for plan in resolved if plan.name not in reasons]
        make_first_models(context, racing)
        context.pause_point()
        reserve_verdict_time(context, racing)
        left = seconds_left(context)
        known = {} if warm is None else warm.known_costs(racing, self.settings)
        measured = estimate_plans(
            context,
            [plan for plan in racing if plan.name not in known],
            seconds=None if left is None else max(2.0, ESTIMATE_SHARE * left),
            rows=race_rows,
            known=measured_first_fits(context, racing),
        )
        estimates = {**known, **measured}
        context.pause_point()
        kept = [plan for plan in racing if estimates[plan.name].kept]
        folds = int(self.run.state["folds"])
        controls = min(len(suite.tasks), max_control_tasks(folds)) if shared_plans(kept) else 0
        schedule = make_schedule(kept, estimates, race_budget(context, control_tasks=controls))
        left_out |= schedule.left_out
        stored = {}
        for plan in plans:
            # Plans that were left out before the estimates have none.
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
        # One write for all decisions: a resumed run finds either all of them or none.
        self.run.save(
            state="scheduled",
            estimates=stored,
            plans=[plan.to_json() for plan in plans],
            schedule=schedule.to_json(),
            machine=machine_facts(self.run.state),
        )
