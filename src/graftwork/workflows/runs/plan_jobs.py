"""Which jobs a run consists of: plans, seeds and steps become job records with stable names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from graftwork.core.records import Plan
from graftwork.workflows.runs.horizons import RUNGS, own_horizon
from graftwork.workflows.runs.job import Job, RunFacts, folder_name
from graftwork.workflows.runs.jobs.affinity import AffinityJob
from graftwork.workflows.runs.jobs.assemble import AssembleJob
from graftwork.workflows.runs.jobs.curve import CurveJob
from graftwork.workflows.runs.jobs.estimate import ENOUGH, LONG_HORIZON, MEASURED, WARM_UP, EstimateJob
from graftwork.workflows.runs.jobs.export import ExportJob
from graftwork.workflows.runs.jobs.grouping import GroupingJob
from graftwork.workflows.runs.jobs.importance import ImportanceJob
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.schedule import NO_SCHEDULE, Schedule

__all__ = ["JobMaker"]

SomeJob = TypeVar("SomeJob", bound=Job)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMaker:
    """Makes the jobs of one run. Names depend on plan, seed and phase only, so that a resumed run finds what is finished."""

    facts: RunFacts
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """Plans by name, in the order of the portfolio."""
    schedule: Schedule = NO_SCHEDULE

    def make(self, kind: type[SomeJob], name: str, plan: str, **fields: Any) -> SomeJob:
        """Return a job of any kind for a plan of the schedule.

        Args:
            kind: Class of the job.
            name: What its folder is named after.
            plan: Name of the plan.
            fields: Other fields of the class.
        """
        known: dict[str, Any] = {"plan": self.plans[plan], "facts": self.facts, "max_steps": self.schedule.horizons[plan]}
        return kind(id=folder_name(name), **known, **fields)

    def estimate(
        self, plan: Plan, *, seconds: float = ENOUGH, rows: int = 0, known: tuple[int, float] | None = None
    ) -> EstimateJob:
        """Return the job that measures what a step costs.

        Args:
            plan: The plan; it need not be in the schedule.
            seconds: Seconds after which it makes do with what it has.
            rows: Most training rows; 0: all.
            known: Rows and seconds of a fit in one go that was made before; None if there was none.
        """
        own = own_horizon(plan)
        return EstimateJob(
            id=folder_name(f"estimate-{plan.name}"),
            phase="estimate",
            plan=plan,
            facts=self.facts,
            rows=rows,
            seconds=seconds,
            known=known,
            until=WARM_UP + MEASURED,
            max_steps=LONG_HORIZON if own is None else own,
        )

    def grouping(self, plan: Plan, until: int) -> GroupingJob:
        """Return the short run, before there is a schedule, in which affinities are measured on training rows alone."""
        return GroupingJob(
            id=folder_name(f"grouping-{plan.name}"),
            phase="grouping",
            plan=plan,
            facts=self.facts,
            until=until,
            max_steps=until,
        )

    def first_id(self, plan: str) -> str:
        """Return the name of the job of a first model."""
        return folder_name(f"first-{plan}")

    def rung_id(self, plan: str, rung: int) -> str:
        """Return the name of a rung's job."""
        return folder_name(f"rung{rung + 1}-{plan}")

    def rung(self, plan: str, rung: int) -> TrainJob:
        """Return the job of a rung (0 is the first); later ones go on from the one before, and so does the first one of a plan that
        is fitted in one go: its first model may have learned from the same rows."""
        before = self.rung_id(plan, rung - 1) if rung else self.first_id(plan) if self.plans[plan].fitted_at_once else None
        until = self.schedule.rung_steps(plan, rung)
        return self.make(
            TrainJob,
            self.rung_id(plan, rung),
            plan,
            phase=f"rung {rung + 1}",
            rows=self.facts.race_rows,
            until=until,
            continues=before,
        )

    def final(self, plan: str, seed: int, *, now: bool = False, rung: int = len(RUNGS) - 1) -> TrainJob:
        """Return the job of a finalist; seed 0 goes on from the last rung.

        Args:
            plan: Name of the plan.
            seed: Seed; 0 is on the suite's own split.
            now: Train no further, judge what is there (the time is up).
            rung: The last rung that there was.
        """
        return self.make(
            TrainJob,
            # The same name with `now`: it must find the checkpoint of the final that was cut.
            f"final-{plan}-s{seed}",
            plan,
            phase="final",
            seed=seed,
            rows=self.schedule.final_rows,
            # 0 trains nothing: the learner is further already.
            until=0 if now else self.schedule.horizons[plan],
            # What was learned from a sample of the rows is no start for more of them.
            continues=self.rung_id(plan, rung) if seed == 0 and self.facts.race_rows == self.schedule.final_rows else None,
            predict=("test", "transfer", "val"),
            cut=now,
        )

    def fallback(self, plan: Plan, *, steps: int, rows: int, seconds: float) -> TrainJob:
        """Return the job of a first model, on a few rows and within seconds.

        Args:
            plan: The plan; it need not be in the schedule.
            steps: Steps; a plan that sets a lower number for itself makes so many.
            rows: Most training rows.
            seconds: Seconds of training after which it is judged as it is.
        """
        steps = min(steps, own_horizon(plan) or steps)
        return TrainJob(
            id=self.first_id(plan.name),
            phase="first model",
            plan=plan,
            facts=self.facts,
            rows=rows,
            until=steps,
            max_steps=steps,
            predict=("test", "transfer", "val"),
            seconds=seconds,
        )

    def attempt(self, number: int, plan: Plan, horizon: int, seed: int, rows: int = 0) -> TrainJob:
        """Return the job that trains a finalist again with other settings, a longer horizon or more rows.

        Args:
            number: Number of the attempt in this run.
            plan: The plan with its settings.
            horizon: Steps of the training.
            seed: As for :meth:`final`.
            rows: Most training rows; 0: all.
        """
        return TrainJob(
            rows=rows,
            id=folder_name(f"attempt{number}-{plan.name}-s{seed}"),
            phase=f"attempt {number}",
            plan=plan,
            facts=self.facts,
            seed=seed,
            until=horizon,
            max_steps=horizon,
            predict=("test", "transfer", "val"),
        )

    def control(self, plan: str, task: str, task_index: int, seed: int) -> TrainJob:
        """Return the control of one task: the plan with the training targets of the other tasks shuffled."""
        return self.make(
            TrainJob,
            # By number: names of tasks may be long, or no names of files.
            f"control-{plan}-t{task_index}-s{seed}",
            plan,
            phase="control",
            seed=seed,
            rows=self.schedule.final_rows,
            until=self.schedule.horizons[plan],
            keep_task=task,
            predict=("test",),
        )

    def whole(self, plan: str, part: int, parts: int, *, longer: float = 1.0, threads: int = 1, seconds: float = 0.0) -> TrainJob:
        """Return the job that trains a model to be handed over: on all rows but one of ``parts`` parts.

        Args:
            plan: Name of the plan.
            part: Number of the model.
            parts: Number of parts.
            longer: Steps as a multiple of those of the race, at least 1.
            threads: Threads of arithmetic.
            seconds: Seconds of training after which it ends as it is; 0: no limit.
        """
        steps = self.schedule.horizons[plan]
        made = self.make(
            TrainJob,
            f"whole-{plan}-{part + 1}of{parts}",
            plan,
            phase="whole",
            seed=part,
            parts=parts,
            until=steps,
            predict=("val",),
            threads=threads,
            seconds=seconds,
        )
        if longer <= 1.0:
            return made
        steps = round(longer * steps)
        # A name of its own: what was trained with another horizon is no start.
        return replace(made, id=f"{made.id}-{steps}steps", until=steps, max_steps=steps)

    def affinity(self, plan: str) -> AffinityJob:
        """Return the short extra run in which the tasks' effects on one another are measured."""
        until = max(4, round(0.3 * self.schedule.horizons[plan]))
        return self.make(AffinityJob, f"affinity-{plan}", plan, phase="affinity", rows=self.facts.race_rows, until=until)

    def export(self, trained: TrainJob, folder: str) -> ExportJob:
        """Return the job that writes the deployable model of a finished training into a folder of the run."""
        return ExportJob(
            id=folder_name(f"export-{trained.plan.name}"),
            phase="export",
            plan=trained.plan,
            facts=self.facts,
            seed=trained.seed,
            parts=trained.parts,
            rows=trained.rows,
            max_steps=trained.max_steps,
            source=trained.id,
            folder=folder,
        )

    def assemble(self, plan: Plan, trained: Sequence[TrainJob], folder: str) -> AssembleJob:
        """Return the job that writes the average of finished trainings into a folder of the run.

        Args:
            plan: From :func:`graftwork.training.blend.blend_plan`, with a member for each training.
            trained: The trainings, in the order of the members.
            folder: Name of the folder.
        """
        return AssembleJob(
            id=folder_name(f"export-{plan.name}"),
            phase="export",
            plan=plan,
            facts=self.facts,
            max_steps=max(job.max_steps for job in trained),
            sources=tuple(job.id for job in trained),
            folder=folder,
        )

    def curve(self, final: TrainJob, place: int, part: float) -> CurveJob:
        """Return the job that trains a finalist again on a part of its rows.

        Args:
            final: Its finished final.
            place: Number of the part.
            part: Share of the training rows, in (0, 1).
        """
        return CurveJob(
            id=folder_name(f"curve{place}-{final.id}"),
            phase="learning curve",
            plan=final.plan,
            facts=self.facts,
            seed=final.seed,
            until=final.max_steps,
            max_steps=final.max_steps,
            predict=("test",),
            part=part,
        )

    def importance(self, plan: Plan, trained: Sequence[tuple[TrainJob, Mapping[str, float]]], seconds: float) -> ImportanceJob:
        """Return the job that measures how important each column is.

        Args:
            plan: The plan, or the average of several.
            trained: Its finished trainings, each with ``{task: weight}``.
            seconds: Seconds that it may take; 0 is a fixed effort.
        """
        members = tuple({"job": job.to_json(), "weights": dict(weights)} for job, weights in trained)
        # By its members: a resumed run may have chosen another plan, or trained it anew.
        named = [[job.id, dict(weights)] for job, weights in trained]
        digest = hashlib.sha256(json.dumps([named, seconds], sort_keys=True).encode()).hexdigest()[:8]
        return ImportanceJob(
            id=folder_name(f"importance-{plan.name}-{digest}"),
            phase="importance",
            plan=plan,
            facts=self.facts,
            members=members,
            seconds=seconds,
        )
