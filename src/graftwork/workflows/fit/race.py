"""The race: rungs of successive halving, then finals on several seeds, attempts with other settings while there is time, controls and
affinity.

The race knows plans as data and learners as jobs. Calling it again after an interruption walks the same way: jobs that are
finished answer from their folders, and every decision depends on their results and on what was decided and stored before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.workflows.fit.attempts import MARGIN, Attempts, plan_seconds, training_seconds
from graftwork.workflows.fit.cheap_finalists import cheap_finalists, leading_finalist
from graftwork.workflows.fit.fallback import fallback_job
from graftwork.workflows.fit.race_outcome import RaceOutcome, Result, as_judged
from graftwork.workflows.fit.ranking import (
    best_of,
    control_tasks,
    finalists_of,
    is_trained,
    rung_scores,
    survivors_of,
    task_changes,
)
from graftwork.workflows.fit.replanning import (
    known_costs,
    race_budget,
    replanned,
    time_for_another_rung,
    time_for_finals,
    with_measured,
)
from graftwork.workflows.fit.reserve import reserved_seconds
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import MEMBERS, decided, is_decided, seconds_left
from graftwork.workflows.runs.horizons import RUNGS, paid_once, shared_plans
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.plan_costs import Estimate

__all__ = ["Race", "RaceOutcome", "max_control_tasks"]

_MOST_CONTROLS, _MOST_CONTROLS_OF_FOLDS = 8, 3
HURRIED_SHARE = 0.75
"""Share of the time left for trainings of finals that came early for lack of time; the rest is for judging them."""
JUDGING_SECONDS = 40.0
"""Seconds after the end of the time in which finalists are judged as far as they came, if there is no other model."""


def max_control_tasks(folds: int) -> int:
    """Return for how many tasks the control with shuffled companions is made at most; with folds, each needs as many trainings."""
    return _MOST_CONTROLS_OF_FOLDS if folds else _MOST_CONTROLS


class Race:
    """Runs the schedule.

    Args:
        context: The run, with its plans and schedule. Its stop switch says ``finish`` when the time is up, ``keep`` or ``kill``
            on Ctrl-C. :attr:`context` is the run with the plans and the schedule at the end of the race.
    """

    def __init__(self, context: RunContext[Any]) -> None:
        self.context = context
        self.outcome = RaceOutcome()
        self._cheap: list[str] = []
        self._last_rung = len(RUNGS) - 1
        self._lacks_time = False

    def run(self) -> RaceOutcome:
        """Run everything; ends early, with what is there, when ``stop`` says so.

        Returns:
            What came of it; empty if the time was up before any plan was trained.

        Raises:
            GraftworkError: If no plan survived the first rung, and there is no first model either.
        """
        names = [name for name in self.context.plans if name in self.context.schedule.horizons]
        scores: dict[str, float] = {}
        results: dict[str, Result] = {}
        costs = known_costs(self.context)
        failed = ""
        for rung in range(len(RUNGS)):
            jobs = {name: self.context.maker.rung(name, rung) for name in names}
            found = self._rung(rung, jobs)
            if self._is_stopped():
                return self.outcome
            new = rung_scores(self.context.suite, self.context.plans, found, self.context.settings.weights)
            if not new:
                failed = self._why_nothing(found) if rung == 0 and found else ""
                break
            results |= {name: result for name, result in found.items() if not _is_unfinished(result)}
            # A plan that a deadline kept from this rung, or stopped in it, goes on with its score of the rung before.
            late = {name: scores[name] for name in names if name in scores and _is_unfinished(found.get(name))} if rung else {}
            scores = {**late, **new}
            racing = {name: self.context.plans[name] for name in self.context.plans if name in scores}
            costs = with_measured(self.context, costs, jobs, found, went_on=rung > 0)
            names = survivors_of(racing, scores)
            most = len(self._suite_tasks(names))
            last = rung == len(RUNGS) - 1
            finals_next = last or not time_for_another_rung(self.context, names, costs, control_tasks=most, rung=rung)
            if finals_next:
                self._last_rung = rung
                names = finalists_of(racing, scores, self.context.schedule.finalists)
                ended = {name: result for name, result in results.items() if is_trained(result)}
                self._cheap = cheap_finalists(self.context, ended, costs)
                names = [name for name in self.context.plans if name in names or name in self._cheap]
            self.context.run.emit(
                "rung", rung=rung, scores=scores, kept=names, left=[name for name in racing if name not in names]
            )
            most = len(self._suite_tasks(names))
            self.context = replanned(
                self.context, names, costs, control_tasks=most, rung=rung, finals_next=finals_next and not last
            )
            if finals_next:
                self._lacks_time = last and not time_for_finals(self.context)
                break
        # A deadline (`finish`) still leads to finals: cut ones, judged as far as they came.
        if scores:
            self._finals(names, scores, results, costs)
        if not self.outcome.finals and not self._is_stopped():
            self._take_first_model(failed)
        return self.outcome

    @property
    def _is_hurried(self) -> bool:
        """Whether there is no time for whole finals: they came before the last rung, or go on from it as far as they come."""
        return self._last_rung < len(RUNGS) - 1 or self._lacks_time

    def _is_stopped(self) -> bool:
        return self.context.stop.by_user() is not None

    def _suite_tasks(self, names: Sequence[str]) -> Sequence[str]:
        """Return the tasks that may get a control."""
        tasks = list(self.context.suite.task_names)[: max_control_tasks(self.context.maker.facts.folds)]
        return tasks if shared_plans(self.context.plans[name] for name in names) else []

    def _rung(self, rung: int, jobs: Mapping[str, TrainJob]) -> dict[str, Result]:
        self.context.run.emit("phase", phase=f"rung {rung + 1}", jobs=len(jobs), plans=list(jobs))
        answers = self.context.run_jobs(self._longest_first(jobs.values(), first=rung == 0))
        found: dict[str, Result] = {name: answers[job.id] for name, job in jobs.items() if job.id in answers}
        scores = rung_scores(self.context.suite, self.context.plans, found, self.context.settings.weights)
        for name, result in found.items():
            self.outcome.record(rung, name, 0, result, scores.get(name))
        # The older checkpoint goes only when the rung that continued it has a result; first models stay, for want of others.
        for job in jobs.values() if rung else ():
            if job.continues and answers.get(job.id, {}).get("status") == "ok":
                self.context.run.drop_checkpoint(job.continues)
        return found

    def _is_less_than_a_first_model(self) -> bool:
        """Return whether simple baselines alone were finished, and a quick model that was made before the race is more."""
        plans = self.context.plans
        first = fallback_job(self.context)
        return (
            first is not None
            and first.plan.group != "baseline"
            and all(plans[name].group == "baseline" for name in self.outcome.finals)
        )

    def _take_first_model(self, failed: str) -> None:
        """Hand over the model that was made before the race, since nothing else was finished."""
        job = fallback_job(self.context)
        if job is None:
            if failed:
                raise GraftworkError(failed)
            return
        steps = (self.context.run.result(job.id) or {}).get("steps", 0)
        rows = min(job.rows, len(self.context.suite.splits["train"]))
        made = "fitted" if job.plan.fitted_at_once else f"{steps} {'step' if steps == 1 else 'steps'}"
        self.outcome.finals, self.outcome.first_model = {job.plan.name: {0: job}}, True
        self.outcome.warnings.append(
            "No plan of the race was finished within the time limit, so the model is the best of the quick ones that were made before it, "
            f"by their validation scores: `{job.plan.name}`, {made} on {rows:,} rows. Nothing was "
            f"compared on test rows. Go on with: graftwork fit --resume {self.context.run.path} --time-limit 10m"
        )

    def _finals(
        self, names: Sequence[str], scores: Mapping[str, float], results: Mapping[str, Result], costs: Mapping[str, Estimate]
    ) -> None:
        tasks = self._control_plan_and_tasks(names, scores, results)
        schedule, maker = self.context.schedule, self.context.maker
        first = {name: maker.final(name, 0, rung=self._last_rung) for name in names}
        finals = [(name, 0, first[name]) for name in names]
        finals += [(name, seed, maker.final(name, seed)) for seed in schedule.seeds if seed != 0 for name in names]
        # The order decides what a deadline cuts first: cheap plans are done before it can, and the one that is ahead if it leaves
        # time for others; then come one final of everybody, and seed after seed.
        leader = max(scores, key=lambda name: scores[name])
        early = {*self._cheap, *([leader] if self._is_hurried else leading_finalist(self.context, names, scores, costs))}
        queue: list[Job] = [job for name, _, job in finals if name in early]
        for seed in dict.fromkeys((0, *schedule.seeds)):
            queue += self._longest_first(job for name, own, job in finals if own == seed and name not in early)
        self.context.run.emit(
            "phase",
            phase="finals",
            jobs=len(queue),
            plans=list(names),
            control_plan=self.outcome.control_plan,
            control_tasks=tasks,
        )
        # Without time for a rung there is none for whole finals either: they end early enough to be judged.
        left = seconds_left(self.context) if self._is_hurried else None
        answers = self.context.run_jobs(queue, seconds=None if left is None else HURRIED_SHARE * left)
        if self._is_stopped():
            return
        # Finals that never began were cleared from the queue by the deadline.
        if self._is_hurried or self.context.stop() is not None:
            answers |= self._judge_now(names, first, answers)
        if self._is_stopped():
            return
        missing = self._collect_finals(finals, answers)
        if missing and self._is_less_than_a_first_model():
            self.outcome.finals = {}
            return
        if not missing:
            self._add_seeds(names, tasks)
            if self._is_stopped():
                return
            attempts = Attempts(self.context, self.outcome.finals, reserved_seconds(self.context, self.outcome, tasks))
            attempts.run()
            self.context, self.outcome.attempts = attempts.context, attempts.made
            if self._is_stopped():
                self.outcome.finals = {}
                return
        checks = self._checks(tasks)
        missing += self._collect_controls(checks)
        if self._is_stopped():
            self.outcome.finals = {}
        elif missing and self.outcome.finals:
            self.outcome.warnings.append(
                f"The time limit came before the end: {missing} of {len(queue) + len(checks)} trainings of the finals were cut or left "
                "out. The verdict rests on what was finished; give more time with --time-limit."
            )

    def _add_seeds(self, names: Sequence[str], tasks: Sequence[str]) -> None:
        """Train the finalists with seeds that the schedule had given up, while there is time."""
        names = [name for name in names if name in self.outcome.finals]
        planned = race_budget(self.context, control_tasks=0).seeds
        for seed in planned[len(self.context.schedule.seeds) :]:
            context = self.context
            schedule = context.schedule.with_seed(seed, whole_controls=bool(context.maker.facts.folds))
            more = context.planned(context.plans.values(), schedule)
            name = f"seed {seed}"
            is_over = context.stop() is not None or is_decided(context, MEMBERS)
            if is_over and not is_decided(context, name):
                return
            if not decided(context, name, partial(self._has_time, more, names, tasks)):
                return
            jobs = {name: context.maker.final(name, seed) for name in names}
            context.run.emit("phase", phase="more seeds", jobs=len(jobs), plans=names)
            answers = context.run_jobs(self._longest_first(jobs.values()))
            found = {name: answers[job.id] for name, job in jobs.items() if job.id in answers}
            # Runs are compared on equal seeds: one that some plans lack counts for nobody.
            if len(found) < len(jobs) or any(result["status"] != "ok" or result.get("cut") for result in found.values()):
                return
            scores = rung_scores(context.suite, context.plans, found, context.settings.weights)
            for name, result in found.items():
                self.outcome.finals[name][seed] = jobs[name]
                self.outcome.record(len(RUNGS), name, seed, result, scores.get(name))
            self.context = more

    def _has_time(self, more: RunContext[Any], names: Sequence[str], tasks: Sequence[str]) -> bool:
        """Return whether one more training of each of these plans fits before what must follow; ``more`` is the run with it."""
        each = [plan_seconds(self.context, self.outcome.finals[name]) for name in names]
        left, workers = seconds_left(self.context), max(1, self.context.settings.num_workers)
        if left is None or not each:
            return False
        return MARGIN * max(sum(each) / workers, max(each)) + reserved_seconds(more, self.outcome, tasks) <= left

    def _judge_now(
        self, names: Sequence[str], first: Mapping[str, TrainJob], answers: Mapping[str, Result]
    ) -> dict[str, dict[str, Any]]:
        """Time is up: finalists that have not even one final are judged as far as they came."""
        open_names = [name for name in names if answers.get(first[name].id, {}).get("status") in (None, "stopped")]
        jobs = [job for job in (self._judged_as_it_is(name, first[name]) for name in open_names) if job is not None]
        limit = self.context.settings.time_limit
        # Without a first model these are all that the run has.
        grace = None if limit is None else max(3.0, 0.03 * limit) if fallback_job(self.context) else JUDGING_SECONDS
        return self.context.run_jobs(jobs, past_deadline=True, seconds=grace) if jobs else {}

    def _judged_as_it_is(self, name: str, first: TrainJob) -> TrainJob | None:
        """Return the job that judges a finalist without training it; None if it was never trained."""
        maker = self.context.maker
        job = maker.final(name, 0, now=True)
        if self._has_checkpoint(first.id):
            return job
        for rung in reversed(range(len(RUNGS))):
            before = maker.rung_id(name, rung)
            if self._has_checkpoint(before):
                # The rung may have been made for another horizon, or with a part of the rows.
                horizon = (self.context.run.result(before) or {}).get("horizon", job.max_steps)
                return replace(job, rows=maker.facts.race_rows, continues=before, max_steps=int(horizon))
        return None

    def _has_checkpoint(self, job_id: str) -> bool:
        return (self.context.run.job(job_id) / "checkpoint.json").exists()

    def _control_plan_and_tasks(
        self, names: Sequence[str], scores: Mapping[str, float], results: Mapping[str, Result]
    ) -> list[str]:
        plans, suite, schedule = self.context.plans, self.context.suite, self.context.schedule
        reference = next((name for name in names if plans[name].role == "reference"), None)
        plan = best_of(shared_plans(plans[name] for name in names), scores)
        if plan is None or reference is None or len(suite.tasks) < 2:
            return []
        self.outcome.control_plan = plan
        if not plans[plan].shuffled_control:
            self.outcome.warnings.append(
                f"`{plan}` builds on how the labels of its tasks depend on each other, so it has no control with shuffled "
                "companions: what of its gains is transfer and what regularisation stays open."
            )
            return []
        changes = task_changes(suite, results[plan]["validation"], results[reference]["validation"])
        most = min(max_control_tasks(self.context.maker.facts.folds), schedule.control_tasks)
        if not schedule.control_seeds or not most:
            return []
        if len(changes) > most:
            self.outcome.warnings.append(
                f"The control with shuffled companions was made for {most} of {len(changes)} tasks, those with the largest gains "
                "and losses on validation rows."
            )
        return control_tasks(changes, most)

    def _collect_finals(self, finals: Sequence[tuple[str, int, TrainJob]], answers: Mapping[str, Result]) -> int:
        """Note what came of the finals; return how many were cut or are missing."""
        missing = 0
        by_seed: dict[int, dict[str, Result]] = {}
        for name, seed, job in finals:
            result = answers.get(job.id)
            if result is not None and is_trained(result):
                self.outcome.finals.setdefault(name, {})[seed] = as_judged(job, result)
            if result is not None:
                by_seed.setdefault(seed, {})[name] = result
            # A cut training counts as missing, although it is judged.
            missing += result is None or result["status"] == "stopped" or bool(result.get("cut"))
            if result is not None and result["status"] in ("failed", "diverged"):
                self.outcome.warnings.append(f"`{name}` with seed {seed} {result['status']}: {result['message']}")
        for seed, found in by_seed.items():
            scores = rung_scores(self.context.suite, self.context.plans, found, self.context.settings.weights)
            for name, result in found.items():
                self.outcome.record(len(RUNGS), name, seed, result, scores.get(name))
        return missing

    def _checks(self, tasks: Sequence[str]) -> list[tuple[str, int, TrainJob]]:
        """Return the controls, by task and seed."""
        schedule, plan = self.context.schedule, self.outcome.control_plan
        if plan is None:
            return []
        order, finals = list(self.context.suite.task_names), self.outcome.finals.get(plan, {})
        return [
            # The rows of the final: attempts may have given it more, which would pass for an effect of the other tasks' labels.
            (task, seed, replace(self.context.maker.control(plan, task, order.index(task), seed), rows=finals[seed].rows))
            for seed in schedule.seeds[: schedule.control_seeds]
            if seed in finals
            for task in tasks
        ]

    def _collect_controls(self, controls: Sequence[tuple[str, int, TrainJob]]) -> int:
        """Measure affinity, make the controls; return how many were cut or are missing."""
        plan = self.outcome.control_plan
        if plan is None or plan not in self.outcome.finals:
            return 0
        affinity = self.context.maker.affinity(plan)
        queue: list[Job] = [affinity, *(job for _, _, job in controls)]
        self.context.run.emit("phase", phase="controls", jobs=len(queue), plans=[plan])
        answers = self.context.run_jobs(queue)
        missing = 0
        for task, seed, job in controls:
            result = answers.get(job.id)
            # A cut control would be compared with whole trainings, so it is left out.
            if result is not None and result["status"] == "ok" and not result.get("cut"):
                self.outcome.controls.setdefault(task, {})[seed] = job
            missing += result is None or result["status"] == "stopped" or bool(result.get("cut"))
        measured = answers.get(affinity.id, {})
        self.outcome.affinity, self.outcome.gradients = measured.get("affinity"), measured.get("gradients")
        return missing

    def _longest_first(self, jobs: Iterable[TrainJob], *, first: bool = False) -> list[TrainJob]:
        """Return jobs so that the longest begin first: workers then end at about the same time. With ``first``, the jobs are the
        first of their plans, and one of those that read the same features computes them."""
        jobs = list(jobs)
        once = paid_once([job.plan for job in jobs], known_costs(self.context)) if first else {}
        # The estimate's order is enough: all that counts is who is slow.
        return sorted(jobs, key=lambda job: once.get(job.plan.name, 0.0) + training_seconds(self.context, job), reverse=True)

    def _why_nothing(self, found: Mapping[str, Result]) -> str:
        reasons = [f"{name}: {result.get('message') or result['status']}" for name, result in found.items()]
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        return f"No plan survived the first rung, so there is nothing to compare.{listed}\nSee {self.context.run.path / 'log.jsonl'}."


def _is_unfinished(result: Result | None) -> bool:
    """Return whether a job never began, or was stopped before it had a result: its plan failed in nothing."""
    return result is None or result["status"] == "stopped"
