"""The race: rungs of successive halving, then finals on several seeds, controls and affinity in one queue.

The race knows plans as data and learners as jobs. Calling it again after an interruption walks the same way: jobs that are
finished answer from their folders, and every decision depends on their results and the stored schedule only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.workflows.fit.ranking import best_of, control_tasks, finalists_of, rung_scores, survivors_of, task_changes
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.schedule import RUNGS, shared_plans

__all__ = ["Race", "RaceOutcome", "max_control_tasks"]

_MOST_CONTROLS, _MOST_CONTROLS_OF_FOLDS = 8, 3
Result = Mapping[str, Any]


def max_control_tasks(folds: int) -> int:
    """Return for how many tasks the control with shuffled companions is made at most; with folds, each needs as many trainings."""
    return _MOST_CONTROLS_OF_FOLDS if folds else _MOST_CONTROLS


@dataclass(slots=True)
class RaceOutcome:
    """What the verdict is made of."""

    history: list[dict[str, Any]] = field(default_factory=list)
    """One record for each job of rungs and finals, as ``race`` of ``result.json``."""
    finals: dict[str, dict[int, TrainJob]] = field(default_factory=dict)
    """``{plan: {seed: finished job}}``."""
    controls: dict[str, dict[int, TrainJob]] = field(default_factory=dict)
    """``{task: {seed: finished job}}``."""
    control_plan: str | None = None
    affinity: dict[str, Any] | None = None
    gradients: dict[str, Any] | None = None
    """Cosines of the tasks' gradients by stage, from the same run."""
    warnings: list[str] = field(default_factory=list)


class Race:
    """Runs the schedule.

    Args:
        context: The run, with its plans and schedule. Its stop switch says ``finish`` when the time is up, ``keep`` or ``kill``
            on Ctrl-C.
    """

    def __init__(self, context: RunContext[Any]) -> None:
        self._context = context
        self._run, self._suite, self._plans = context.run, context.suite, context.plans
        self._schedule, self._maker, self._stop = context.schedule, context.maker, context.stop
        self.outcome = RaceOutcome()

    def run(self) -> RaceOutcome:
        """Run everything; ends early, with what is there, when ``stop`` says so.

        Returns:
            What came of it; empty if the time was up before any plan was trained.

        Raises:
            GraftworkError: If no plan survived the first rung.
        """
        names = [name for name in self._plans if name in self._schedule.horizons]
        scores: dict[str, float] = {}
        results: dict[str, Result] = {}
        for rung in range(len(RUNGS)):
            found = self._rung(rung, names)
            new = rung_scores(self._suite, self._plans, found, self._context.settings.weights)
            if not new:
                # After Ctrl-C missing scores say nothing about the plans.
                if rung == 0 and found and self._stop() in (None, "finish"):
                    raise GraftworkError(self._why_nothing(found))
                break
            results |= found
            # a plan that a deadline kept from this rung goes on with its score of the rung before
            late = {name: scores[name] for name in names if name not in found and name in scores} if rung else {}
            scores = {**late, **new}
            racing = {name: self._plans[name] for name in self._plans if name in scores}
            last = rung == len(RUNGS) - 1
            names = finalists_of(racing, scores, self._schedule.finalists) if last else survivors_of(racing, scores)
            self._run.emit("rung", rung=rung, scores=scores, kept=names, left=[name for name in racing if name not in names])
        # A deadline (`finish`) still leads to finals: cut ones, judged as far as they came.
        if self._stop() not in ("keep", "kill"):
            self._finals(names, scores, results)
        return self.outcome

    def _rung(self, rung: int, names: Sequence[str]) -> dict[str, Result]:
        jobs = {name: self._maker.rung(name, rung) for name in names}
        self._run.emit("phase", phase=f"rung {rung + 1}", jobs=len(jobs), plans=list(names))
        answers = self._context.run_jobs(self._longest_first(jobs.values()))
        found: dict[str, Result] = {name: answers[job.id] for name, job in jobs.items() if job.id in answers}
        scores = rung_scores(self._suite, self._plans, found, self._context.settings.weights)
        for name, result in found.items():
            self._record(rung, name, 0, result, scores.get(name))
        # The older checkpoint goes only when the rung that continued it has a result.
        for job in jobs.values():
            if job.continues and answers.get(job.id, {}).get("status") == "ok":
                self._run.drop_checkpoint(job.continues)
        return found

    def _finals(self, names: Sequence[str], scores: Mapping[str, float], results: Mapping[str, Result]) -> None:
        tasks = self._control_plan_and_tasks(names, scores, results)
        first = {name: self._maker.final(name, 0) for name in names}
        # The order decides what a deadline cuts first: one final of everybody, the affinities, then seed after seed with its
        # controls.
        queue: list[Job] = [*self._longest_first(first.values())]
        finals = [(name, 0, first[name]) for name in names]
        controls: list[tuple[str, int, TrainJob]] = []
        plan = self.outcome.control_plan
        if plan is not None:
            queue.append(self._maker.affinity(plan))
        for position, seed in enumerate(self._schedule.seeds):
            more = {name: self._maker.final(name, seed) for name in names} if seed != 0 else {}
            finals += [(name, seed, job) for name, job in more.items()]
            checks = []
            if plan is not None and position < self._schedule.control_seeds:
                order = list(self._suite.task_names)
                checks = [(task, seed, self._maker.control(plan, task, order.index(task), seed)) for task in tasks]
            controls += checks
            queue += [*self._longest_first(more.values()), *(job for _, _, job in checks)]
        self._run.emit("phase", phase="finals", jobs=len(queue), plans=list(names), control_plan=plan, control_tasks=tasks)
        answers = self._context.run_jobs(queue)
        # Finals that never began were cleared from the queue by the deadline.
        if self._stop() == "finish":
            answers |= self._judge_now(names, first, answers)
        if self._stop() in ("keep", "kill"):
            return
        self._collect(finals, controls, answers, len(queue))

    def _judge_now(
        self, names: Sequence[str], first: Mapping[str, TrainJob], answers: Mapping[str, Result]
    ) -> dict[str, dict[str, Any]]:
        """Time is up: finalists that have not even one final are judged as far as they came."""
        open_names = [name for name in names if answers.get(first[name].id, {}).get("status") in (None, "stopped")]
        # A finalist that was never trained has nothing to judge.
        jobs = [self._maker.final(name, 0, now=True) for name in open_names if self._has_checkpoint(first[name])]
        return self._context.run_jobs(jobs, past_deadline=True) if jobs else {}

    def _has_checkpoint(self, job: TrainJob) -> bool:
        ids = [job.id, job.continues or job.id]
        return any((self._run.job(name) / "checkpoint.json").exists() for name in ids)

    def _control_plan_and_tasks(
        self, names: Sequence[str], scores: Mapping[str, float], results: Mapping[str, Result]
    ) -> list[str]:
        reference = next((name for name in names if self._plans[name].role == "reference"), None)
        plan = best_of(shared_plans(self._plans[name] for name in names), scores)
        if plan is None or reference is None or len(self._suite.tasks) < 2:
            return []
        self.outcome.control_plan = plan
        if not self._plans[plan].shuffled_control:
            self.outcome.warnings.append(
                f"`{plan}` builds on how the labels of its tasks depend on each other, so it has no control with shuffled "
                "companions: what of its gains is transfer and what regularisation stays open."
            )
            return []
        changes = task_changes(self._suite, results[plan]["validation"], results[reference]["validation"])
        most = max_control_tasks(self._maker.facts.folds)
        if not self._schedule.control_seeds:
            self.outcome.warnings.append("There was no time for a control with shuffled companions.")
            return []
        if len(changes) > most:
            self.outcome.warnings.append(
                f"The control with shuffled companions was made for {most} of {len(changes)} tasks, those with the largest gains "
                "and losses."
            )
        return control_tasks(changes, most)

    def _collect(
        self,
        finals: Sequence[tuple[str, int, TrainJob]],
        controls: Sequence[tuple[str, int, TrainJob]],
        answers: Mapping[str, Result],
        asked: int,
    ) -> None:
        missing = 0
        by_seed: dict[int, dict[str, Result]] = {}
        for name, seed, job in finals:
            result = answers.get(job.id)
            if result is not None and result["status"] == "ok":
                self.outcome.finals.setdefault(name, {})[seed] = job
            if result is not None:
                by_seed.setdefault(seed, {})[name] = result
            # A cut training counts as missing, although it is judged.
            missing += result is None or result["status"] == "stopped" or bool(result.get("cut"))
            if result is not None and result["status"] in ("failed", "diverged"):
                self.outcome.warnings.append(f"`{name}` with seed {seed} {result['status']}: {result['message']}")
        for seed, found in by_seed.items():
            scores = rung_scores(self._suite, self._plans, found, self._context.settings.weights)
            for name, result in found.items():
                self._record(len(RUNGS), name, seed, result, scores.get(name))
        for task, seed, job in controls:
            result = answers.get(job.id)
            # A cut control would be compared with whole trainings, so it is left out.
            if result is not None and result["status"] == "ok" and not result.get("cut"):
                self.outcome.controls.setdefault(task, {})[seed] = job
            missing += result is None or result["status"] == "stopped" or bool(result.get("cut"))
        if self.outcome.control_plan is not None:
            measured = answers.get(self._maker.affinity(self.outcome.control_plan).id, {})
            self.outcome.affinity, self.outcome.gradients = measured.get("affinity"), measured.get("gradients")
        if missing:
            self.outcome.warnings.append(
                f"The time limit came before the end: {missing} of {asked} trainings of the finals were cut or left out. The "
                "verdict rests on what was finished; give more time with --time-limit."
            )

    def _longest_first(self, jobs: Iterable[TrainJob]) -> list[TrainJob]:
        """Return jobs so that the longest begin first: workers then end at about the same time."""
        costs = self._run.state.get("estimates", {})

        def seconds(job: TrainJob) -> float:
            # The estimate's order is enough: all that counts is who is slow.
            return job.until * float(costs.get(job.plan.name, {}).get("seconds_per_step", 0.0))

        return sorted(jobs, key=seconds, reverse=True)

    def _record(self, rung: int, plan: str, seed: int, result: Result, score: float | None) -> None:
        self.outcome.history.append(
            {
                "rung": rung,
                "plan": plan,
                "seed": seed,
                "steps": result.get("steps", 0),
                "status": result["status"],
                "message": result.get("message", ""),
                "validation": result.get("validation", {}),
                "score": score,
                "seconds": result.get("seconds", 0.0),
            }
        )

    def _why_nothing(self, found: Mapping[str, Result]) -> str:
        reasons = [f"{name}: {result.get('message') or result['status']}" for name, result in found.items()]
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        return f"No plan survived the first rung, so there is nothing to compare.{listed}\nSee {self._run.path / 'log.jsonl'}."
