"""What is handed over once the verdict has chosen: trainings on all rows of the chosen plan, or of the members of the ensemble or the mixed plan.

Where the time is up before they are done, models of the race take their places, as they were judged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from graftwork.core.records import Plan
from graftwork.core.seeds import Seeds
from graftwork.evaluation.choice.sentences import join_words
from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.workflows.fit.attempts import training_seconds
from graftwork.workflows.fit.combined import blend_plan
from graftwork.workflows.fit.large_suites import for_many_rows, least_steps, see_a_part, time_for_all_rows, weights_chosen_again
from graftwork.workflows.fit.ranking import mean_change
from graftwork.workflows.fit.whole_models import TENTHS, models_of, seconds_for_all_rows, whole_models
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["Handover", "at_hand", "handover"]

Weights = Mapping[str, Mapping[str, float]]
LEAST_OF_LONGER = 0.8
"""Share of its steps from which on a training that was to be longer than those of the race is handed over though it was cut: most of
the fall of its rate is behind it then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """What the deployed model is made of."""

    plan: Plan
    """The plan itself, or one that is made of several trainings: an average, or a plan for each task."""
    trained: tuple[TrainJob, ...]
    """Finished trainings, in the order of the members."""
    parts: int
    """Models of each plan that see all rows between them; 0 if these are models of the race."""
    weights: Weights
    """``{plan: {task: weight}}``."""
    whole: tuple[str, ...] = ()
    """Plans whose trainings saw all rows between them."""
    at_once: tuple[str, ...] = ()
    """Those of them that are fitted in one go, on all rows."""
    members: int = 1
    """Models of each plan that were to be made on all rows."""
    longer: Mapping[str, float] = field(default_factory=dict)
    """How many times the steps of the race the models of plans made that were still improving."""
    note: str = ""
    """Why it is not what was planned; empty if it is."""

    def job(self, context: RunContext[Any], folder: str) -> Job:
        """Return the job that writes the model into a folder of the run."""
        if len(self.trained) == 1:
            return context.maker.export(self.trained[0], folder)
        return context.maker.assemble(self.plan, self.trained, folder)

    def facts(self) -> dict[str, Any]:
        """Return ``model`` of ``result.json``."""
        return {
            "rows": "all" if set(self.whole) == set(self.weights) else "some" if self.whole else "training",
            "whole": list(self.whole),
            "at_once": list(self.at_once),
            "models": len(self.trained),
            "parts": self.parts,
            "weights": {plan: dict(weights) for plan, weights in self.weights.items()},
            "trainings": [job.id for job in self.trained],
            "members": self.members,
            "longer": dict(self.longer),
        }


def handover(
    context: RunContext[FitSettings],
    choice: str,
    title: str,
    weights: Weights,
    finals: Mapping[str, Mapping[int, TrainJob]],
    improving: Collection[str] = (),
) -> Handover:
    """Train what is handed over, or take what there is.

    Args:
        context: The run.
        choice: Name of the chosen plan.
        title: One line about it.
        weights: ``{plan: {task: weight}}``: one plan with all weight, or the members of what is made of several.
        finals: Finished finals of every plan.
        improving: Plans that longer trainings would probably make better.
    """
    wanted, note = whole_models(context, weights, finals, improving), ""
    if wanted.members:
        counts = {plan: models_of(context, plan, wanted.members) for plan in weights}
        asked, more = list(weights), {}
        if see_a_part(weights, finals):
            chosen = {plan: finals[plan] for plan in weights}

            def in_time() -> list[str]:
                return list(time_for_all_rows(context, chosen, seconds_for_all_rows(context)))

            asked = [plan for plan in decided(context, "plans on all rows", in_time) if plan in weights]
            more = for_many_rows(context, weights, finals, seconds_for_all_rows(context))
        jobs = {
            (plan, part): context.maker.whole(
                plan,
                part,
                wanted.parts if counts[plan] > 1 else 1,
                longer=wanted.longer if plan in improving else 1.0,
                **more.get(plan, {}),
            )
            for plan in asked
            for part in range(counts[plan])
        }
        context.run.emit("phase", phase="whole", jobs=len(jobs), plans=asked)
        # Part after part, so that what a deadline cuts leaves whole parts.
        in_order: list[Job] = [
            job for _, job in sorted(jobs.items(), key=lambda item: (item[0][1], -training_seconds(context, item[1])))
        ]
        left = seconds_for_all_rows(context)
        answers = context.run_jobs(in_order, past_deadline=left is not None, seconds=left)
        least = {plan: least_steps(context, plan, finals, more) for plan in weights}
        done = {
            job.id
            for (plan, _), job in jobs.items()
            if _is_whole(answers.get(job.id), least[plan]) or _is_long_enough(context, job, answers.get(job.id), finals[plan])
        }
        made = {
            plan: [part for part in range(counts[plan]) if (plan, part) in jobs and jobs[plan, part].id in done]
            for plan in weights
        }
        # Parts that all members with parts have; without two of them, each member brings what it has.
        bagged = [plan for plan in weights if counts[plan] > 1]
        usable = [part for part in range(wanted.members) if bagged and all(part in made[plan] for plan in bagged)]
        taken = {plan: usable if len(usable) > 1 and plan in bagged else found for plan, found in made.items()}
        # One part alone has not seen the rows that it left out: two are needed to have seen all. A tenth is what single models leave out.
        alone = set(bagged) if wanted.parts < TENTHS else set()
        taken = {plan: [] if plan in alone and len(found) == 1 else found for plan, found in taken.items()}
        whole = {plan: [jobs[plan, part] for part in found] for plan, found in taken.items() if found}
        missing = [f"`{plan}`" for plan in weights if plan not in whole]
        if not whole:
            note = "The time limit came before the chosen plan could learn from all rows, so the model is one of the race."
        elif missing:
            note = (
                f"The time limit came before {join_words(missing)} could learn from all rows, so this part of the model is one "
                "of the race."
            )
        elif any(len(whole[plan]) < wanted.members for plan in bagged):
            counted = join_words([f"{len(whole[plan])} of `{plan}`" for plan in bagged])
            many = sum(map(len, whole.values())) > 1
            one = "for each task the average of its plan" if one_plan_a_task(weights) else "their average"
            note = (
                f"Of {wanted.members} models of each plan that see other rows each, {counted} "
                f"{f'were finished; {one}' if many else 'was finished; it'} is handed over."
            )
        cut = [plan for plan in whole if (answers.get(whole[plan][0].id) or {}).get("cut")]
        if cut:
            steps = join_words([f"`{plan}` after {answers[whole[plan][0].id]['steps']} steps" for plan in cut])
            note = f"{note} The time limit ended trainings on all rows: {steps}.".strip()
        if more and len(weights) > 1 and not missing:
            weights = weights_chosen_again(context, weights, {plan: found[0] for plan, found in whole.items()})
            whole = {plan: whole[plan] for plan in weights}
        if whole:
            shown = wanted.parts if any(plan in whole for plan in bagged) else 1
            given = _average(
                context, choice, title, weights, {**_of_race(context, weights, finals), **whole}, shown, tuple(whole), note
            )
            longer = {plan: wanted.longer for plan in whole if plan in improving and wanted.longer > 1.0}
            return replace(given, members=wanted.members, longer=longer)
    return _average(context, choice, title, weights, _of_race(context, weights, finals), 0, (), note)


def at_hand(
    context: RunContext[FitSettings],
    name: str,
    title: str,
    weights: Weights,
    finals: Mapping[str, Mapping[int, TrainJob]],
    given: Handover,
    others: Mapping[str, TrainJob] | None = None,
) -> Handover:
    """Return what another finalist is handed over as, from trainings that are finished: nothing is trained.

    Those of the race by which it was judged, or, of plans that take part in what is handed over for the choice, those on all rows.

    Args:
        context: The run.
        name: Name of the finalist.
        title: One line about it.
        weights: ``{plan: {task: weight}}``, as for :func:`handover`.
        finals: Finished finals of every plan.
        given: What is handed over for the choice.
        others: Finished trainings on all rows of plans that take no part in it, by plan.
    """
    whole = {plan: [job for job in given.trained if job.plan.name == plan] for plan in weights if plan in given.whole}
    own = {plan: [job] for plan, job in (others or {}).items() if plan in weights and plan not in whole}
    taken = {**_of_race(context, weights, finals), **whole, **own}
    parts = given.parts if whole else 1 if own else 0
    return _average(context, name, title, weights, taken, parts, (*whole, *own), "")


def _of_race(
    context: RunContext[FitSettings], weights: Weights, finals: Mapping[str, Mapping[int, TrainJob]]
) -> dict[str, list[TrainJob]]:
    """Return the trainings of the race by which each plan was judged: all folds, or the first seed."""
    many = bool(context.maker.facts.folds) and not context.settings.single
    found = {plan: [finals[plan][seed] for seed in sorted(finals[plan])] for plan in weights}
    return {plan: jobs if many else jobs[:1] for plan, jobs in found.items()}


def _average(
    context: RunContext[FitSettings],
    choice: str,
    title: str,
    weights: Weights,
    taken: Mapping[str, Sequence[TrainJob]],
    parts: int,
    whole: tuple[str, ...],
    note: str,
) -> Handover:
    jobs = tuple(job for plan in weights for job in taken[plan])
    plan = context.plans[next(iter(weights))]
    if len(jobs) > 1:
        members = [
            _member(context, job, {task: weight / len(taken[name]) for task, weight in weights[name].items()})
            for name in weights
            for job in taken[name]
        ]
        plan = blend_plan(choice, title, members, context.suite.kinds)
    at_once = tuple(name for name in whole if context.plans[name].fitted_at_once)
    return Handover(plan=plan, trained=jobs, parts=parts, weights=weights, whole=whole, at_once=at_once, note=note)


def _member(context: RunContext[FitSettings], job: TrainJob, weights: Mapping[str, float]) -> dict[str, Any]:
    """Return one member as :class:`graftwork.training.blend.BlendLearner` takes it, with the rows and the seed of its training."""
    folds = context.maker.facts.folds
    divided: dict[str, int] = {}
    if job.parts:
        divided = {"parts": job.parts, "part": job.seed}
    elif job.rows:
        divided = {"rows": job.rows, "rows_seed": job.seed}
    elif folds:
        divided = {"folds": folds, "number": job.seed}
    seed = Seeds(context.maker.facts.root_seed).integer(f"seed {job.seed}")
    return {"plan": job.plan.to_json(), "steps": job.max_steps, "weights": dict(weights), "seed": seed, **divided}


def _is_long_enough(
    context: RunContext[FitSettings], job: TrainJob, result: Mapping[str, Any] | None, finals: Mapping[int, TrainJob]
) -> bool:
    """Return whether a training that was to be longer than those of the race is good enough though the end of the time cut it: near its
    end, or not shorter than those and better on the rows that it left out than they were on theirs."""
    usual = context.schedule.horizons.get(job.plan.name, 0)
    if result is None or result["status"] != "ok" or job.max_steps <= usual:
        return False
    steps = int(result.get("steps", 0))
    if steps >= LEAST_OF_LONGER * job.max_steps:
        return True
    before = context.run.result(finals[min(finals)].id) or {}
    scores = (result.get("validation", {}), before.get("validation", {}))
    change = mean_change(context.suite, *scores, context.settings.weights)
    return steps >= usual and change is not None and change > 0


def _is_whole(result: Mapping[str, Any] | None, least_steps: float) -> bool:
    if result is None or result["status"] != "ok":
        return False
    return not result.get("cut") or int(result.get("steps", 0)) >= least_steps
