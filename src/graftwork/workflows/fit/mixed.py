"""The mixed plan of a race: for each task the finished plan that is best for it on validation rows, handed over as one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.blend import row_parts
from graftwork.evaluation.choice.mixed import Picks, crossed_answers, picks_of
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.workflows.fit.answers import Answers
from graftwork.workflows.fit.combined import Combined, combined_run, scores_without_parts, side_by_side

__all__ = ["MIXED", "build_mixed"]

MIXED = "mixed"
"""Name of the plan."""
ALONE = "alone"
"""Name, here only, of whoever takes the one best plan for all tasks."""
NAMED_TASKS = 3
"""Tasks of a plan that the title names."""

Array = NDArray[Any]
Ints = NDArray[np.int64]


def build_mixed(
    suite: Suite, answers: Mapping[str, Sequence[Answers]], weights: Mapping[str, float] | None = None
) -> Combined | None:
    """Pick a plan for each task on validation rows; None if one plan serves all tasks, or nothing is gained by several.

    Whether something is gained is asked of rows that took no part in the choice, of the mixed plan as of the one plan that it is
    compared with. What the mixed plan answers for a row is answered by the plans that rows of other parts picked.

    Args:
        suite: The judged suite.
        answers: ``{plan: runs}``; plans that lack a run which others have are left out.
        weights: Weights of tasks in means over them, above 0; tasks without one weigh 1.
    """
    plans, runs = side_by_side(answers)
    if len(plans) < 2 or len(suite.tasks) < 2:
        return None
    parts = row_parts(len(suite), suite.groups)
    scores = np.stack([scores_without_parts(suite, task, runs, parts) for task in suite.tasks], axis=-1)
    picks = picks_of(scores, suite.tasks, weights)
    if len(set(picks.tasks.tolist())) < 2 or not _can_cross(suite, runs[0], picks):
        return None
    mixed = _runs(suite, MIXED, picks, runs, parts, ("val", "test"))
    alone = _runs(suite, ALONE, picks.alone(), runs, parts, ("val",))
    # Unknown scores are no gain.
    if not _lead(suite, {MIXED: mixed, ALONE: alone}, weights) > 0:
        return None
    names = [plans[number] for number in picks.tasks]
    taken = {plan: {task.name: 1.0 for task, name in zip(suite.tasks, names, strict=True) if name == plan} for plan in plans}
    taken = {plan: own for plan, own in taken.items() if own}
    listed = "; ".join(f"{plan} for {_listed(list(own))}" for plan, own in taken.items())
    return Combined(name=MIXED, title=f"One plan for each task: {listed}", weights=taken, runs=mixed)


def _lead(suite: Suite, runs: Mapping[str, Sequence[Answers]], weights: Mapping[str, float] | None) -> float:
    """Return how far the mixed plan is ahead of the one plan, in percent of the best score; NaN if it is not known."""
    plans = {name: Plan(name=name, title=name, role="independent", modalities=tuple(suite.kinds)) for name in runs}
    table = ValidationTable(suite, {name: [one.final for one in found] for name, found in runs.items()}, plans, weights)
    return table.behind(ALONE, MIXED)


def _listed(tasks: Sequence[str]) -> str:
    more = len(tasks) - NAMED_TASKS
    return ", ".join(tasks) if more <= 1 else f"{', '.join(tasks[:NAMED_TASKS])} and {more} more"


def _can_cross(suite: Suite, run: Sequence[Answers], picks: Picks) -> bool:
    """Return whether the picked plans lay out their answers alike, so that rows of both can be in one array."""
    for index, task in enumerate(suite.tasks):
        numbers = {int(picks.tasks[index]), *picks.tasks_without[:, index].tolist(), picks.best, *picks.best_without.tolist()}
        if len({np.shape(run[number].val[task.name])[1:] for number in numbers}) > 1:
            return False
    return True


def _runs(
    suite: Suite, name: str, picks: Picks, runs: Sequence[Sequence[Answers]], parts: Ints, splits: Sequence[str]
) -> tuple[Answers, ...]:
    """Return what the picked plans answer together on ``val``, or on ``val`` and ``test``."""
    choosing = np.unique(np.concatenate([one[0].val_rows for one in runs]))
    found = []
    for one in runs:
        answered: dict[str, dict[str, Array]] = {"test": {}, "val": {}}
        for split, (index, task) in product(splits, enumerate(suite.tasks)):
            # Read when they are asked for: answers of dense tasks are large.
            def answers(plan: int, task: str = task.name, one: Sequence[Answers] = one, split: str = split) -> Array:
                return np.asarray((one[plan].val if split == "val" else one[plan].final.predictions)[task])

            rows = one[0].val_rows if split == "val" else suite.splits["test"]
            picked, without = int(picks.tasks[index]), picks.tasks_without[:, index]
            answered[split][task.name] = crossed_answers(picked, without, rows, parts, choosing, answers)
        found.append(combined_run(suite, name, one[0], answered))
    return tuple(found)
