"""One ``distill`` from data to model: open, ask the teachers, fix the budget, train the student alone and taught, judge,
export."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.records import Plan
from graftwork.workflows.compare.budget import make_budget
from graftwork.workflows.compare.trainings import run_trainings
from graftwork.workflows.distill.finish import finish_distillation
from graftwork.workflows.distill.plans import student_plan, taught_plan, teacher_shares, teacher_weights, unlabelled_rows
from graftwork.workflows.distill.settings import DistillSettings
from graftwork.workflows.distill.teaching import ask_teachers, leak_words
from graftwork.workflows.portfolio import check_stored
from graftwork.workflows.quantities import format_seconds
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.estimation import estimate_plans
from graftwork.workflows.runs.preparation import machine_facts
from graftwork.workflows.runs.schedule import Schedule
from graftwork.workflows.runs.session import RunSession
from graftwork.workflows.teachers.naming import check_teacher

__all__ = ["DistillSession"]

_FOR_TRAINING = 0.85
"""Share of the time that is left after the teachers have answered; the rest is for export and judging."""
_LATE, _OVER = 0.97, 1.2
"""Shares of the time limit at which trainings are asked to end, and are ended."""


class DistillSession(RunSession[DistillSettings]):
    """Runs or resumes one ``distill`` in its folder."""

    @property
    def is_unlabelled(self) -> bool:
        """Whether the data has no labels, so that the teachers' answers stand in its suite."""
        return "pseudo" in self.run.state

    def is_late(self) -> bool:
        """Return whether trainings have to come to an end; with fixed steps they take the time that they take."""
        limit = self.settings.time_limit
        return limit is not None and self.settings.steps is None and self.run.seconds_used() > _LATE * limit

    def is_over(self) -> bool:
        """Return whether jobs have to be ended now."""
        limit = self.settings.time_limit
        return limit is not None and self.settings.steps is None and self.run.seconds_used() > _OVER * limit

    def go(self) -> dict[str, Any]:
        """Do everything that is not done yet.

        Returns:
            The result, as ``result.json``.

        Raises:
            RunStopped: If the user stopped it; finished work is kept.
            ConfigError: If a teacher cannot teach, or the time is too short.
            GraftworkError: If a training or the export failed.
        """
        with self.opened() as context:
            if "test" not in context.suite.splits or not len(context.suite.splits["test"]):
                raise ConfigError("The data has no test rows, so nothing could be said of the student. Let graftwork divide it.")
            alone, backbone = student_plan(self.settings, context.suite.kinds)
            # Before any teacher computes: the last one may be mistyped.
            for name in self.settings.teachers:
                check_teacher(name, context.suite.kinds)
            self.run.save(backbone=backbone)
            context = context.planned([alone])
            self._check_taps(context, alone)
            teachers = ask_teachers(context, alone)
            if "schedule" not in self.run.state:
                self._decide(context, alone, teachers)
            state = self.run.state
            check_stored(map(Plan.from_json, state["plans"]), f"The run in {self.run.path}")
            context = context.planned(map(Plan.from_json, state["plans"]), Schedule.from_json(state["schedule"]))
            self.run.emit("budget", **state["schedule"], workers=max(1, self.settings.num_workers))
            trained = run_trainings(context, with_affinity=False)
            context.pause_point()
            if self.is_unlabelled:
                from graftwork.workflows.distill.agreement import finish_unlabelled

                result = finish_unlabelled(context, trained, teachers)
            else:
                result = finish_distillation(context, trained, teachers)
        self.run.save(state="done")
        for folder in (self.run.path / "jobs").iterdir():
            self.run.drop_checkpoint(folder.name)
        self.run.emit("done", seconds=round(self.run.seconds_used(), 1), verdict=result["verdict"])
        return result

    def _decide(self, context: RunContext[DistillSettings], alone: Plan, teachers: list[dict[str, Any]]) -> None:
        """Weigh the teachers, make both plans, fix the steps, and store all of it."""
        settings, suite = self.settings, context.suite
        weights = teacher_shares(settings, len(teachers)) if self.is_unlabelled else teacher_weights(settings, teachers)
        plans = list(taught_plan(alone, settings, suite, teachers, weights))
        # Without labels nothing is there that a student alone could learn.
        plans = plans[1:] if self.is_unlabelled else plans
        schedule = self._schedule(context.planned(plans), plans)
        self._check_binding(context.planned(plans, schedule), plans[-1].name, schedule)
        # What a teacher has learned from flatters scores, which there are none of without labels.
        asked = () if self.is_unlabelled else settings.teachers
        warnings = [words for name in asked if (words := leak_words(context, name))]
        # One write for all decisions: a resumed run finds either all of them or none.
        self.run.save(
            state="scheduled",
            plans=[plan.to_json() for plan in plans],
            schedule=schedule.to_json(),
            teacher_weights=weights,
            unlabelled=unlabelled_rows(suite),
            leaks=warnings,
            machine=machine_facts(self.run.state),
        )

    def _check_taps(self, context: RunContext[DistillSettings], alone: Plan) -> None:
        """Refuse modules that student or teachers do not have, and store which teacher has which.

        Raises:
            ConfigError: Naming the path and the nearest ones.
        """
        if not self.settings.tap_pairs or "teacher_taps" in self.run.state:
            return
        from graftwork.workflows.distill.tap_checks import check_student_taps, taps_of_teachers

        check_student_taps(context, alone)
        self.run.save(teacher_taps=taps_of_teachers(context))

    def _check_binding(self, context: RunContext[DistillSettings], name: str, schedule: Schedule) -> None:
        """Build the taught student once: what its tapped modules give is known only then, and the other student trains first.

        Raises:
            ConfigError: If a tapped module does not run, or gives nothing that a way can compare.
        """
        if self.settings.tap_pairs:
            job = context.maker.final(name, schedule.seeds[0])
            job.learner(job.suite(self.run))

    def _schedule(self, context: RunContext[DistillSettings], plans: list[Plan]) -> Schedule:
        """Return the same steps for both plans: as many as were asked for, or as fit into the time for the slower one."""
        settings, seeds = self.settings, range(self.settings.seeds)
        if settings.steps is not None:
            return make_budget(plans, steps=settings.steps, seconds=None, seeds=seeds)
        assert settings.time_limit is not None, "the caller sets one of both"
        estimates = estimate_plans(context, plans)
        context.pause_point()
        left = max(0.0, settings.time_limit - self.run.seconds_used())
        rounds = -(-len(plans) * len(seeds) // max(1, min(settings.num_workers, len(plans) * len(seeds))))
        seconds = _FOR_TRAINING * left / rounds
        schedule = make_budget(plans, steps=None, seconds=seconds, seeds=seeds, estimates=estimates)
        if schedule.left_out:
            raise ConfigError(
                f"{format_seconds(settings.time_limit)} are too few for {len(seeds)} seeds of the student{'' if self.is_unlabelled else ' alone and taught'}: "
                f"{'; '.join(f'{name}: {reason}' for name, reason in schedule.left_out.items())}. Give more time, or fewer "
                f"--seeds."
            )
        return replace(schedule, horizons=dict.fromkeys(schedule.horizons, min(schedule.horizons.values())))
