"""Finished plans put together: the ensemble averages them, the mixed plan takes one of them for each task.

Both are one learner, :class:`graftwork.training.blend.BlendLearner`, and so are judged, handed over and exported in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.mixed import scores_by_part
from graftwork.evaluation.choice.scores import FinalRun
from graftwork.evaluation.choice.together import one_plan_a_task
from graftwork.evaluation.metrics import score_task
from graftwork.math.weighted_sums import mean_of_columns
from graftwork.workflows.fit.answers import Answers, fold_scores

__all__ = ["Combined", "blend_plan", "combined_run", "scores_without_parts", "side_by_side"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Combined:
    """Which plans, and what they answer together."""

    name: str
    title: str
    """One line for people."""
    weights: Mapping[str, Mapping[str, float]]
    """``{plan: {task: weight}}`` of the plans that have any."""
    runs: tuple[Answers, ...]


def side_by_side(answers: Mapping[str, Sequence[Answers]]) -> tuple[list[str], list[list[Answers]]]:
    """Return the plans that can be put together, and for each run what each of them answered.

    Only answers for the same rows can be: validation rows are those of a seed, and of a training that the end of the time cut those
    of its rung.

    Args:
        answers: ``{plan: runs}``; plans that lack a run which others have, or answers for validation rows, are left out. Of plans with
            equally many runs those with the same seeds and rows as most of them stay, the earlier ones in a tie.
    """
    alike: dict[tuple[tuple[int, bytes], ...], list[str]] = {}
    for name, runs in answers.items():
        if runs and all(run.val for run in runs):
            alike.setdefault(tuple((run.final.seed, run.val_rows.tobytes()) for run in runs), []).append(name)
    if not alike:
        return [], []
    # max keeps the first of equals, so the order of plans decides and not chance.
    _, plans = max(alike.items(), key=lambda item: (len(item[0]), len(item[1])))
    return plans, [[answers[name][number] for name in plans] for number in range(len(answers[plans[0]]))]


def scores_without_parts(
    suite: Suite, task: TaskSpec, runs: Sequence[Sequence[Answers]], parts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the scores of all plans for a task from all validation rows, and from all but those of one part, ``[1 + PARTS, P]``:
    means over runs of what :func:`graftwork.evaluation.choice.mixed.scores_by_part` gives.

    Args:
        suite: The judged suite.
        task: One of its tasks.
        runs: From :func:`side_by_side`.
        parts: Part of every row of the suite.
    """
    found = []
    for one in runs:
        rows = one[0].val_rows
        trainings = np.zeros(len(rows), dtype=np.int64) if one[0].val_parts is None else one[0].val_parts
        target = np.asarray(suite.targets[task.name][rows])
        found.append([scores_by_part(task, target, np.asarray(plan.val[task.name]), parts[rows], trainings) for plan in one])
    # [R, P, 1 + PARTS]
    return mean_of_columns(np.moveaxis(np.array(found, dtype=np.float64), 0, -1)).T


def combined_run(suite: Suite, name: str, first: Answers, answered: Mapping[str, Mapping[str, Array]]) -> Answers:
    """Return one run of plans put together, with its scores on validation rows.

    Args:
        suite: The judged suite.
        name: Name of the plan.
        first: The same run of any of the plans: rows, folds and seed are those of all.
        answered: ``test`` and ``val``, each ``{task: answers}``.
    """
    validation = {
        task.name: score_task(task, np.asarray(suite.targets[task.name][first.val_rows]), answered["val"][task.name])
        for task in suite.tasks
    }
    final = FinalRun(
        plan_name=name,
        seed=first.final.seed,
        predictions=answered["test"],
        validation=validation,
        validation_parts=fold_scores(suite, answered["val"], first.val_rows, first.val_parts),
        parts=first.final.parts,
    )
    return Answers(final=final, val_rows=first.val_rows, val=answered["val"], val_parts=first.val_parts)


def blend_plan(name: str, title: str, members: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> Plan:
    """Return the plan of several plans put together.

    Args:
        name: Its name.
        title: One line for people.
        members: As :class:`graftwork.training.blend.BlendLearner` takes them.
        kinds: Kinds of the inputs.
    """
    learner = {"path": "graftwork.training.blend:BlendLearner", "settings": {"members": [dict(one) for one in members]}}
    stage = {"kind": "train", "learner": learner}
    # Several trainings of one plan are that plan.
    by_plan: dict[str, dict[str, float]] = {}
    for one in members:
        by_plan.setdefault(str(one["plan"]["name"]), {}).update(one["weights"])
    group = "mixed" if one_plan_a_task(by_plan) else "ensemble"
    fields = {"name": name, "title": title, "role": "independent", "group": group, "modalities": list(kinds)}
    return Plan.from_json({**fields, "stages": [stage]})
