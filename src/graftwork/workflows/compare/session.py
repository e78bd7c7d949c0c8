"""One ``compare`` from data to leaderboard: open, choose plans, fix the budget, train, judge, report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graftwork.core.records import Plan
from graftwork.workflows.compare.budget import make_budget
from graftwork.workflows.compare.finish import finish_comparison
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.compare.trainings import run_trainings
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.runs.auto_groups import resolve_groupings
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.pool import Pool, make_pool
from graftwork.workflows.runs.preparation import check_one_for_each, choose_backbone, choose_plans, machine_facts
from graftwork.workflows.runs.schedule import Schedule
from graftwork.workflows.runs.session import RunSession

__all__ = ["CompareSession"]


class CompareSession(RunSession[CompareSettings]):
    """Runs or resumes one ``compare`` in its folder."""

    def go(self) -> dict[str, Any]:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
            GraftworkError: If nothing could be trained.
        """
        with self.opened() as context:
            result = self._train_and_judge(context)
        # Checkpoints go after the state is stored: a kill in between leaves too many files, never too few.
        self.run.save(state="done")
        for folder in (self.run.path / "jobs").iterdir():
            self.run.drop_checkpoint(folder.name)
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def make_pool(self) -> Pool:
        """Return the pool of the engine; on a cluster, no number of workers means all its cores."""
        engine = self.settings.engine
        return make_pool(
            self.run.path, self.settings.num_workers if engine == "local" else self.settings.workers or 0, engine=engine
        )

    def _train_and_judge(self, context: RunContext[CompareSettings]) -> dict[str, Any]:
        if "schedule" not in self.run.state:
            self._fix_budget(context)
        else:
            check_stored(map(Plan.from_json, self.run.state["plans"]), f"The run in {self.run.path}")
        state = self.run.state
        context = context.planned(map(Plan.from_json, state["plans"]), Schedule.from_json(state["schedule"]))
        self.run.emit("budget", **state["schedule"], workers=max(1, self.settings.num_workers), engine=self.settings.engine)
        measured = state.get("grouping")
        trained = run_trainings(context, with_affinity=measured is None)
        context.pause_point()
        # Measured before the trainings, with a model that shares everything.
        if measured is not None:
            trained.affinity, trained.gradients = measured["affinity"], measured["gradients"]
        return finish_comparison(context, trained)

    def _fix_budget(self, context: RunContext[CompareSettings]) -> None:
        """Choose plans, measure groups and costs where they are needed, fix every plan's steps, and store all of it."""
        settings, suite = self.settings, context.suite
        plans = choose_plans(self.run, settings, suite)
        backbone, reason = choose_backbone(settings, suite.kinds)
        check_one_for_each(backbone, suite)
        left_out = {plan.name: reason for plan in plans if plan.source == "pretrained" and not backbone}
        self.run.save(backbone=backbone)
        context = context.planned(plans)
        racing = [plan for plan in plans if plan.name not in left_out]
        resolved, reasons, measured = resolve_groupings(context, racing)
        context.pause_point()
        left_out |= reasons
        known = {plan.name: plan for plan in resolved}
        racing = [plan for plan in resolved if plan.name not in left_out]
        estimates = None
        if settings.steps is None:
            estimates = estimate_plans(context, racing)
            context.pause_point()
            left_out |= {name: estimate.reason for name, estimate in estimates.items() if not estimate.kept}
            racing = [plan for plan in racing if plan.name not in left_out]
        schedule = make_budget(
            racing, steps=settings.steps, seconds=settings.time_limit, seeds=range(settings.seeds), estimates=estimates
        )
        schedule = replace(schedule, left_out={**left_out, **schedule.left_out})
        # One write for all decisions: a resumed run finds either all of them or none.
        self.run.save(
            state="scheduled",
            # Every plan of the list is stored, those left out as well: the leaderboard gives their reasons.
            plans=[known.get(plan.name, plan).to_json() for plan in plans],
            schedule=schedule.to_json(),
            estimates={name: estimate.to_json() for name, estimate in (estimates or {}).items()},
            grouping=measured,
            machine=machine_facts(self.run.state),
        )
