"""How long the verdict will take: measured on some of the tasks before the race, so that the race ends early enough.

The verdict scores every finalist on a thousand resamples of the test rows, metric by metric, and tries corrections and thresholds. On a
few tasks that takes a second; on hundreds of them, longer than the share of the time that is otherwise left for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import GraftworkError
from graftwork.core.records import Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.decisions import VERDICT, decided, seconds_left

__all__ = ["reserve_verdict_time", "verdict_seconds"]

FEW_TASKS = 12
"""Up to so many tasks the usual share of the time is enough."""
_SAMPLE = 12
_MOST_ARMS = 9
"""Finalists, plans that answer a question, the average and the mixed plan, as far as a race usually has them."""
_BESIDES = 1.3
"""What diagnostics, average and report take beside what is measured."""
_FAILURES = (GraftworkError, ArithmeticError, LookupError, TypeError, ValueError)


def reserve_verdict_time(context: RunContext[Any], plans: Sequence[Plan]) -> None:
    """Measure how long the verdict on many tasks will take, and keep it in the run's state: trainings are cut so much earlier.

    Args:
        context: The run.
        plans: Plans that race, the reference first.
    """
    suite = context.suite
    if seconds_left(context) is None or len(suite.tasks) <= FEW_TASKS or not plans:
        return

    def measure() -> float:
        folds = context.maker.facts.folds
        try:
            return verdict_seconds(suite, plans, runs=1 if folds else context.settings.seeds, every_row=bool(folds))
        except _FAILURES as error:  # a kind of task that random answers cannot be made for
            context.run.emit(
                "warning", message=f"How long the verdict takes could not be measured: {type(error).__name__}: {error}"
            )
            return 0.0

    decided(context, VERDICT, measure)


def verdict_seconds(suite: Suite, plans: Sequence[Plan], *, runs: int, every_row: bool) -> float:
    """Return about how many seconds the verdict will take.

    Args:
        suite: The suite.
        plans: Plans that race, the reference first.
        runs: Trainings of each finalist that are judged.
        every_row: Whether all rows are judged, as in a cross-validation.
    """
    from graftwork.evaluation.choice.scores import resamples_of_verdict

    if every_row:
        rows = np.concatenate([suite.splits[name] for name in ("train", "val", "test")])
        suite = suite.with_splits({**suite.splits, "test": np.sort(rows)})
    places = np.linspace(0, len(suite.tasks) - 1, min(_SAMPLE, len(suite.tasks))).astype(int)
    names = tuple(suite.task_names[place] for place in dict.fromkeys(places.tolist()))
    resamples = resamples_of_verdict(len(suite.tasks), len(suite.splits["test"]))
    arms, few = plans[:2], names[: max(1, len(names) // 4)]
    # The first time, imports would be measured.
    _judge(suite.with_tasks(few), arms, 2)
    # What does not grow with the number of tasks is in both.
    once = _seconds(lambda: _judge(suite.with_tasks(few), arms, resamples))
    judging = max(0.0, _seconds(lambda: _judge(suite.with_tasks(names), arms, resamples)) - once) / max(1, len(names) - len(few))
    deciding = _seconds(lambda: _decide(suite.with_tasks(few))) / len(few)
    expected = min(len(plans) + 2, _MOST_ARMS) * runs / len(arms)
    return _BESIDES * (once + len(suite.tasks) * (judging * expected + deciding))


def _seconds(action: Callable[[], None]) -> float:
    """Return the seconds that something takes: its own, and as many as others had the machine meanwhile, up to the same again."""
    wall, own = time.perf_counter(), time.process_time()
    action()
    own = time.process_time() - own
    return min(max(time.perf_counter() - wall, own), 2.0 * own)


def _answers(suite: Suite, seed: int) -> dict[str, Any]:
    """Return random answers for the test rows."""
    draw, rows = np.random.default_rng(seed), suite.splits["test"]
    found = {}
    for task in suite.tasks:
        shape = task_kind(task).answer_shape(task, np.shape(suite.targets[task.name][rows]))
        found[task.name] = draw.uniform(0.01, 0.99, size=shape).astype(np.float32)
    return found


def _judge(suite: Suite, arms: Sequence[Plan], resamples: int) -> None:
    from graftwork.evaluation.choice.scores import FinalRun
    from graftwork.evaluation.choice.verdict import build_verdict
    from graftwork.evaluation.metrics import metrics_of

    validation = {task.name: dict.fromkeys(metrics_of(task), 0.5) for task in suite.tasks}
    finals = {
        plan.name: [FinalRun(plan_name=plan.name, seed=0, predictions=_answers(suite, place), validation=validation)]
        for place, plan in enumerate(arms)
    }
    ledgers = {plan.name: Ledger(parameters_stored=1) for plan in arms}
    records = {plan.name: plan for plan in arms}
    build_verdict(suite, finals, controls={}, affinity=None, ledgers=ledgers, plans=records, num_resamples=resamples)


def _decide(suite: Suite) -> None:
    from graftwork.evaluation.correction_fit import kept_correction
    from graftwork.evaluation.threshold_choice import kept_thresholds

    rows, answers = suite.splits["test"], _answers(suite, 0)
    for task in suite.tasks:
        target, units = np.asarray(suite.targets[task.name][rows]), np.arange(len(rows))
        if task_kind(task).label_columns(task, target[:1]):
            kept_correction(task, target, answers[task.name], units)
            kept_thresholds(task, target, answers[task.name], units)
