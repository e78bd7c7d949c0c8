"""One ``tune`` from data to delta: open, measure what every method costs, choose, train, export, report."""

from __future__ import annotations

import dataclasses
from typing import Any

from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import Plan
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.pool import Pool, make_pool
from graftwork.workflows.runs.preparation import check_backbone_kind, check_one_for_each, choose_backbone, machine_facts
from graftwork.workflows.runs.schedule import Schedule
from graftwork.workflows.runs.session import RunSession
from graftwork.workflows.tune.costs import Row, choose, measure_costs
from graftwork.workflows.tune.finish import finish_tuning
from graftwork.workflows.tune.methods import AUTO, TuneMethod, find_method, plan_of, tuning_methods
from graftwork.workflows.tune.settings import TuneSettings

__all__ = ["TuneSession"]


class TuneSession(RunSession[TuneSettings]):
    """Runs or resumes one ``tune`` in its folder."""

    def make_pool(self) -> Pool:
        """Return a pool of one worker: what is measured must not be disturbed by what runs beside it."""
        return make_pool(self.run.path, min(1, self.settings.num_workers))

    def go(self) -> dict[str, Any]:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
            ConfigError: If the method cannot tune this backbone, or breaks a limit, or none fits the limits.
            GraftworkError: If the training failed.
        """
        with self.opened() as context:
            if "schedule" not in self.run.state:
                self._decide(context)
            state = self.run.state
            check_stored(map(Plan.from_json, state["plans"]), f"The run in {self.run.path}")
            context = context.planned(map(Plan.from_json, state["plans"]), Schedule.from_json(state["schedule"]))
            final = self._train(context)
            result = finish_tuning(context, final)
        self.run.save(state="done")
        for folder in (self.run.path / "jobs").iterdir():
            self.run.drop_checkpoint(folder.name)
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def _decide(self, context: RunContext[TuneSettings]) -> None:
        """Measure costs, choose the method, and store both."""
        settings = self.settings
        backbone, reason = choose_backbone(settings, context.suite.kinds)
        if not backbone:
            raise ConfigError(f"There is no backbone to tune: {reason}. Name one; graftwork backbones lists them.")
        check_one_for_each(backbone, context.suite)
        check_backbone_kind(backbone, context.suite)
        self.run.save(backbone=backbone)
        context = context.planned(())
        asked = None if settings.method == AUTO else find_method(settings.method, settings.settings)
        rows = measure_costs(context, asked)
        methods = {**tuning_methods(), **({asked.name: asked} if asked else {})}
        chosen, why = (asked.name, "") if asked else choose(context, rows, methods)
        if asked:
            _check_row(asked, next(row for row in rows if row["method"] == asked.name))
        plan = plan_of(methods[chosen])
        schedule = Schedule(horizons={plan.name: settings.steps or 0}, seeds=(0,), control_seeds=1)
        # One write for all decisions: a resumed run finds either all of them or none.
        self.run.save(
            state="scheduled",
            plans=[plan.to_json()],
            schedule=schedule.to_json(),
            costs=rows,
            chosen_because=why,
            machine=machine_facts(self.run.state),
        )

    def _train(self, context: RunContext[TuneSettings]) -> TrainJob:
        name = next(iter(context.plans))
        job = context.maker.final(name, 0)
        # No race came before, so there is nothing to go on from.
        final = dataclasses.replace(job, continues=None, phase="training")
        context.run.emit("phase", phase="training", jobs=1, plans=[name])
        # A process of its own: what the measurements left behind is no memory of this training.
        pool = self.make_pool()
        try:
            answer = dataclasses.replace(context, pool=pool).run_jobs([final]).get(final.id, {"status": "stopped"})
        finally:
            pool.close()
        context.pause_point()
        if answer["status"] != "ok":
            raise GraftworkError(
                f"The training of {name} ended with {answer['status']}: {answer.get('message', '')}. See log.jsonl."
            )
        return final


def _check_row(method: TuneMethod, row: Row) -> None:
    """Refuse a method that the user named and that cannot be used.

    Raises:
        ConfigError: Saying why.
    """
    if row["status"] == "over":
        raise ConfigError(
            f"{method.name} breaks a limit: {row['message']}. Give more, or let --method auto choose one that fits."
        )
    if row["status"] != "ok":
        raise ConfigError(f"{method.name} cannot tune this backbone: {row['message']}")
