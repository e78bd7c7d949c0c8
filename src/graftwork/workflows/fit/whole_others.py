"""Models of all rows of finalists that were not chosen, with time that is left once the chosen model is written: they are kept beside
it, and otherwise would be those of the race, which learned from the training rows only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from graftwork.workflows.fit.attempts import training_seconds, whole_seconds
from graftwork.workflows.fit.handover import Handover
from graftwork.workflows.fit.race_outcome import RaceOutcome
from graftwork.workflows.fit.whole_models import LONGEST, whole_parts
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import decided, seconds_left
from graftwork.workflows.runs.jobs.train import TrainJob
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["others_on_all_rows"]


def others_on_all_rows(
    context: RunContext[FitSettings],
    outcome: RaceOutcome,
    names: Sequence[str],
    given: Handover,
    improving: Collection[str] = (),
) -> dict[str, TrainJob]:
    """Train finalists that were not chosen on all rows, as many as there is time for.

    Args:
        context: The run.
        outcome: Gives the finished trainings.
        names: The finalists, the better ones first.
        given: What is handed over for the choice; its trainings on all rows are there already.
        improving: Plans that longer trainings would probably make better.

    Returns:
        ``{plan: its finished training}``; nothing without a time limit, with folds (of whose models averages are kept), or where finals
        did not see all training rows.
    """
    if outcome.first_model or whole_parts(context) != 1 or context.schedule.final_rows:
        return {}
    finals = {name: outcome.finals[name] for name in names if name in outcome.finals and name not in given.whole}
    wanted: Mapping[str, float] = decided(context, "others on all rows", lambda: _in_time(context, finals, improving))
    jobs = {
        name: context.maker.whole(name, 0, 1, longer=longer)
        for name, longer in wanted.items()
        if name in finals and 1.0 <= longer <= LONGEST
    }
    if not jobs:
        return {}
    context.run.emit("phase", phase="whole", jobs=len(jobs), plans=list(jobs))
    longest_first = sorted(jobs.values(), key=lambda job: -training_seconds(context, job))
    # Whoever is late is kept as the race made it.
    answers = context.run_jobs(longest_first)
    found = {name: answers.get(job.id, {}) for name, job in jobs.items()}
    return {name: jobs[name] for name, answer in found.items() if answer.get("status") == "ok" and not answer.get("cut")}


def _in_time(
    context: RunContext[FitSettings], finals: Mapping[str, Mapping[int, TrainJob]], improving: Collection[str]
) -> dict[str, float]:
    """Return ``{plan: steps as a multiple of those of the race}`` of the plans for which there is time."""
    left = seconds_left(context)
    if left is None:
        return {}
    workers = max(1, context.settings.num_workers)
    spent, found = 0.0, {}
    each = whole_seconds(context, finals)
    for name, one in each.items():
        # The same answer for every row is no model that anybody asks for.
        if context.plans[name].group != "baseline" and one <= left and (spent + one) / workers <= left:
            spent += one
            found[name] = 1.0
    gaining = [name for name in found if name in improving and not context.plans[name].fitted_at_once]
    if gaining:
        own, longest = sum(each[name] for name in gaining), max(each[name] for name in gaining)
        factor = min(LONGEST, (left * workers - (spent - own)) / max(own, 1e-9), left / max(longest, 1e-9))
        found |= dict.fromkeys(gaining, max(1.0, int(100 * factor) / 100))
    return found
