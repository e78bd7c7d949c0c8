"""What is handed over once the verdict has chosen: trainings on all rows of the chosen plan, or of the members of the ensemble or the mixed plan.

Where the time is up before they are done, models of the race take their places, as they were judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.core.records import Plan
from graftwork.core.seeds import Seeds
from graftwork.evaluation.choice.sentences import join_words
from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.workflows.fit.attempts import plan_seconds, training_seconds, whole_seconds
from graftwork.workflows.fit.combined import blend_plan
from graftwork.workflows.fit.large_suites import for_many_rows, least_steps, see_a_part, time_for_all_rows, weights_chosen_again
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.job import Job
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["Handover", "at_hand", "handover", "whole_parts"]

Weights = Mapping[str, Mapping[str, float]]
BAG = 5
"""Models of each plan that are trained where one was planned, if the time that is left suffices for all of them."""
GRACE = 0.08
"""Share of the time limit by which models on all rows may end later than trainings of the race, which stop a little before it."""


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
        }


def whole_parts(context: RunContext[FitSettings]) -> int:
    """Return how many models of a plan are handed over that see all rows between them; 0 for those of the race."""
    settings, folds = context.settings, context.maker.facts.folds
    if not settings.refit:
        return 0
    return 1 if settings.single or not folds else folds


def _parts_in_time(context: RunContext[FitSettings], weights: Weights, finals: Mapping[str, Mapping[int, TrainJob]]) -> int:
    """Return how many models of each plan are trained on all rows: as planned, or fewer if the time does not suffice."""
    planned = whole_parts(context)
    # A first model was made because there was no time for more.
    if not planned or any(name not in context.schedule.horizons for name in weights):
        return 0
    # Of large suites a model of all rows is worth more than several of them.
    if see_a_part(weights, finals):
        return 1

    def decide() -> int:
        left = _seconds(context)
        if left is None:
            return planned
        each = {name: plan_seconds(context, finals[name]) for name in weights}
        workers = max(1, context.settings.num_workers)
        # Not two: each would see half of the rows, fewer than the models of the race.
        choices = [parts for parts in dict.fromkeys((planned, 3, 1)) if parts <= planned]

        def seconds(parts: int, each: Mapping[str, float]) -> float:
            total = sum(_num_parts(context, name, parts) * one for name, one in each.items())
            return max(*each.values(), total / workers)

        if _may_bag(context, weights):
            whole = whole_seconds(context, {name: finals[name] for name in weights})
            # Without the grace, which is for the one model that is needed.
            if seconds(BAG, whole) <= left - GRACE * (context.settings.time_limit or 0.0):
                return BAG
        fitting = [parts for parts in choices if seconds(parts, each) <= left]
        return fitting[0] if fitting else 1

    found = decided(context, "models on all rows", decide)
    if not 1 <= found <= max(planned, BAG):
        raise ValueError(f"{found} models on all rows were decided, of {planned}")  # what is stored was changed
    return int(found)


def _may_bag(context: RunContext[FitSettings], weights: Weights) -> bool:
    """Return whether an average of several models may take the place of the one that was planned: it is several times as large and
    as slow, which the user may not want, and helps plans alone whose models differ by the rows on which they stop."""
    settings = context.settings
    limits = (settings.max_params, settings.max_latency, settings.max_memory)
    is_wanted = settings.prefer == "score" and not settings.single and all(limit is None for limit in limits)
    return is_wanted and whole_parts(context) == 1 and not all(context.plans[name].fitted_at_once for name in weights)


def _num_parts(context: RunContext[Any], plan: str, parts: int) -> int:
    """Return how many models of a plan are handed over: one where it is fitted in one go, which needs no rows to stop on and so
    learns from all of them."""
    return 1 if context.plans[plan].fitted_at_once else parts


def handover(
    context: RunContext[FitSettings], choice: str, title: str, weights: Weights, finals: Mapping[str, Mapping[int, TrainJob]]
) -> Handover:
    """Train what is handed over, or take what there is.

    Args:
        context: The run.
        choice: Name of the chosen plan.
        title: One line about it.
        weights: ``{plan: {task: weight}}``: one plan with all weight, or the members of what is made of several.
        finals: Finished finals of every plan.
    """
    parts, note = _parts_in_time(context, weights, finals), ""
    if parts:
        counts = {plan: _num_parts(context, plan, parts) for plan in weights}
        asked, more = list(weights), {}
        if see_a_part(weights, finals):
            chosen = {plan: finals[plan] for plan in weights}
            asked = list(time_for_all_rows(context, chosen, _seconds(context)))
            more = for_many_rows(context, weights, finals, _seconds(context))
        jobs = {
            (plan, part): context.maker.whole(plan, part, counts[plan], **more.get(plan, {}))
            for plan in asked
            for part in range(counts[plan])
        }
        context.run.emit("phase", phase="whole", jobs=len(jobs), plans=asked)
        # Part after part, so that what a deadline cuts leaves whole parts.
        in_order: list[Job] = [
            job for _, job in sorted(jobs.items(), key=lambda item: (item[0][1], -training_seconds(context, item[1])))
        ]
        left = _seconds(context)
        answers = context.run_jobs(in_order, past_deadline=left is not None, seconds=left)
        done = {
            job.id for (plan, _), job in jobs.items() if _is_whole(answers.get(job.id), least_steps(context, plan, finals, more))
        }
        made = {
            plan: [part for part in range(counts[plan]) if (plan, part) in jobs and jobs[plan, part].id in done]
            for plan in weights
        }
        # Parts that all members with parts have; without two of them, each member brings what it has.
        bagged = [plan for plan in weights if counts[plan] > 1]
        usable = [part for part in range(parts) if bagged and all(part in made[plan] for plan in bagged)]
        taken = {plan: usable if len(usable) > 1 and plan in bagged else found for plan, found in made.items()}
        # One part alone has not seen the rows that it left out: two are needed to have seen all.
        taken = {plan: [] if plan in bagged and len(found) == 1 else found for plan, found in taken.items()}
        whole = {plan: [jobs[plan, part] for part in found] for plan, found in taken.items() if found}
        missing = [f"`{plan}`" for plan in weights if plan not in whole]
        if not whole:
            note = "The time limit came before the chosen plan could learn from all rows, so the model is one of the race."
        elif missing:
            note = (
                f"The time limit came before {join_words(missing)} could learn from all rows, so this part of the model is one "
                "of the race."
            )
        elif any(len(whole[plan]) < parts for plan in bagged):
            counted = join_words([f"{len(whole[plan])} of `{plan}`" for plan in bagged])
            note = (
                f"Of {parts} models of each plan that see other rows each, {counted} were finished; "
                f"{'for each task the average of its plan' if one_plan_a_task(weights) else 'their average'} is handed over."
            )
        cut = [plan for plan in whole if (answers.get(whole[plan][0].id) or {}).get("cut")]
        if cut:
            steps = join_words([f"`{plan}` after {answers[whole[plan][0].id]['steps']} steps" for plan in cut])
            note = f"{note} The time limit ended trainings on all rows: {steps}.".strip()
        if more and len(weights) > 1 and not missing:
            weights = weights_chosen_again(context, weights, {plan: found[0] for plan, found in whole.items()})
            whole = {plan: whole[plan] for plan in weights}
        if whole:
            shown = parts if any(plan in whole for plan in bagged) else 1
            return _average(
                context, choice, title, weights, {**_of_race(context, weights, finals), **whole}, shown, tuple(whole), note
            )
    return _average(context, choice, title, weights, _of_race(context, weights, finals), 0, (), note)


def at_hand(
    context: RunContext[FitSettings],
    name: str,
    title: str,
    weights: Weights,
    finals: Mapping[str, Mapping[int, TrainJob]],
    given: Handover,
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
    """
    whole = {plan: [job for job in given.trained if job.plan.name == plan] for plan in weights if plan in given.whole}
    taken = {**_of_race(context, weights, finals), **whole}
    return _average(context, name, title, weights, taken, given.parts if whole else 0, tuple(whole), "")


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


def _is_whole(result: Mapping[str, Any] | None, least_steps: float) -> bool:
    if result is None or result["status"] != "ok":
        return False
    return not result.get("cut") or int(result.get("steps", 0)) >= least_steps


def _seconds(context: RunContext[FitSettings]) -> float | None:
    """Return the seconds that models on all rows may take: what is left, and a little beyond the limit, since they are the better
    models; None without a limit."""
    left, limit = seconds_left(context), context.settings.time_limit
    return None if left is None or limit is None else left + GRACE * limit
