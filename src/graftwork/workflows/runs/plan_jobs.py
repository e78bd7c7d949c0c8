"""Which jobs a run consists of: plans, seeds and steps become plain job records with stable names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.records import Plan
from graftwork.workflows.runs.jobs import Job, make_job
from graftwork.workflows.runs.schedule import RUNGS, Schedule

__all__ = ["JobMaker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JobMaker:
    """Makes the jobs of one run. Names depend on plan, seed and phase only, so that a resumed run finds what is finished."""

    plans: Mapping[str, Plan]
    schedule: Schedule
    cache: str
    backbone: str = ""
    root_seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    checkpoint_seconds: float = 20.0

    def _train(self, job_id: str, phase: str, plan: str, seed: int, until: int, **fields: Any) -> Job:
        return make_job(
            "train",
            job_id,
            phase=phase,
            plan=self.plans[plan].to_json(),
            seed=seed,
            until=until,
            max_steps=self.schedule.horizons[plan],
            cache=self.cache,
            backbone=self.backbone,
            root_seed=self.root_seed,
            overrides=dict(self.overrides),
            checkpoint_seconds=self.checkpoint_seconds,
            **fields,
        )

    def estimate(self, plan: Plan) -> Job:
        """Return the job that measures what a step costs."""
        return make_job(
            "estimate",
            f"estimate-{plan.name}",
            phase="estimate",
            plan=plan.to_json(),
            until=6,
            cache=self.cache,
            backbone=self.backbone,
            root_seed=self.root_seed,
            overrides=dict(self.overrides),
        )

    def rung_id(self, plan: str, rung: int) -> str:
        """Return the name of a rung's job."""
        return make_job("train", f"rung{rung + 1}-{plan}")["id"]

    def rung(self, plan: str, rung: int) -> Job:
        """Return the job of a rung (0 is the first); later ones go on from the one before."""
        before = self.rung_id(plan, rung - 1) if rung else None
        until = self.schedule.rung_steps(plan, rung)
        return self._train(self.rung_id(plan, rung), f"rung {rung + 1}", plan, 0, until, continues=before)

    def final(self, plan: str, seed: int, *, now: bool = False) -> Job:
        """Return the job of a finalist; seed 0 goes on from the last rung.

        Args:
            plan: Name of the plan.
            seed: Seed; 0 is on the suite's own split.
            now: Train no further, judge what is there (the time is up).
        """
        before = self.rung_id(plan, len(RUNGS) - 1) if seed == 0 else None
        until = 0 if now else self.schedule.horizons[plan]
        return self._train(
            f"final-{plan}-s{seed}", "final", plan, seed, until, continues=before, predict=["test", "transfer"], cut=now
        )

    def control(self, plan: str, task: str, task_index: int, seed: int) -> Job:
        """Return the control of one task: the plan with the training targets of the other tasks shuffled."""
        return self._train(
            f"control-{plan}-t{task_index}-s{seed}",
            "control",
            plan,
            seed,
            self.schedule.horizons[plan],
            keep_task=task,
            predict=["test"],
        )

    def affinity(self, plan: str, tasks: Sequence[str]) -> Job:
        """Return the short extra run in which the tasks' effects on one another are measured."""
        until = max(4, round(0.3 * self.schedule.horizons[plan]))
        return {**self._train(f"affinity-{plan}", "affinity", plan, 0, until, tasks=list(tasks)), "kind": "affinity"}

    def grouping(self, plan: Plan, tasks: Sequence[str], until: int) -> Job:
        """Return the short run, before there is a schedule, in which affinities are measured on training rows alone."""
        return make_job(
            "affinity",
            f"grouping-{plan.name}",
            phase="grouping",
            plan=plan.to_json(),
            seed=0,
            until=until,
            max_steps=until,
            tasks=list(tasks),
            training_rows_only=True,
            cache=self.cache,
            backbone=self.backbone,
            root_seed=self.root_seed,
            overrides=dict(self.overrides),
        )

    def export(self, plan: str, seed: int, folder: str) -> Job:
        """Return the job that writes the deployable model of a finished final."""
        source = make_job("train", f"final-{plan}-s{seed}")["id"]
        return {**self._train(f"export-{plan}", "export", plan, seed, 0, source=source, folder=folder), "kind": "export"}
