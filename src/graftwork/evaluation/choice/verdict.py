"""The verdict: from the finalists' predictions to what to use and why. A pure function, no files and no training.

Validation scores select (:mod:`graftwork.evaluation.choice.selection`), test rows only measure, and sentences say no more than
the comparisons carry (:mod:`graftwork.evaluation.choice.word`). Two questions are answered apart: which model to ship, and do the
tasks help each other (:mod:`graftwork.evaluation.choice.together`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.records import Interval, Ledger, Plan
from graftwork.data.suite import Suite
from graftwork.evaluation.choice import sentences as text
from graftwork.evaluation.choice.comparison import control_rows, pooled_control, source_rows
from graftwork.evaluation.choice.judge import Judge, pareto_rows
from graftwork.evaluation.choice.scores import FinalRun, ScoreBank
from graftwork.evaluation.choice.selection import TOLERANCE, Prefer, choose_plan
from graftwork.evaluation.choice.together import is_combined, pairs_to_judge, plans_of_tasks
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.pair_judgement import judge_pairs

__all__ = ["FinalRun", "build_verdict", "pareto_rows"]


def build_verdict(
    suite: Suite,
    finals: Mapping[str, Sequence[FinalRun]],
    *,
    controls: Mapping[str, Sequence[FinalRun]],
    affinity: Mapping[str, Any] | None,
    ledgers: Mapping[str, Ledger],
    plans: Mapping[str, Plan],
    limits: Mapping[str, Any] | None = None,
    weights: Mapping[str, float] | None = None,
    tolerance: float = TOLERANCE,
    prefer: Prefer = "score",
    num_resamples: int = 1000,
    seed: int = 0,
    over_plans: bool = False,
) -> dict[str, Any]:
    """Judge the finalists.

    Args:
        suite: The suite; its ``test`` rows (and ``transfer`` rows) measure.
        finals: ``{plan: runs}``, one run a seed.
        controls: ``{task: runs}`` of a shared plan (named by the runs) whose other tasks' training targets were shuffled.
        affinity: From :func:`graftwork.evaluation.affinity.summarise_affinity`, or None.
        ledgers: Costs by plan.
        plans: Records of all plans in ``finals``.
        limits: ``max_params`` (stored numbers), ``max_latency`` (ms), ``max_memory`` (bytes); missing or None is no limit.
        weights: Weights of tasks in means over tasks, above 0; tasks without one weigh 1.
        tolerance: Percent of the best validation score that a cheaper plan may be worse by, at least 0.
        prefer: ``score`` keeps the best plan on validation, ``cost`` takes the cheapest that is not worse within the tolerance.
        num_resamples: Bootstrap resamples of the test rows.
        seed: Seed of the resamples.
        over_plans: Adjust p-values for the number of plans as well as of tasks, for readers who compare plans with one another;
            and add ``overall``, the comparison of every plan's delta-m, adjusted for the number of plans.

    Returns:
        JSON: ``plans`` (``test``, ``per_seed``, ``delta_m``, ``relative``, ``transfer`` for each), ``comparisons``,
            ``source_effect``, ``controls``, ``pair_words`` (what may be said of the affinities), ``pareto``, ``verdict``.
            Undefined numbers are None. The numbers behind the verdict's sentences are ``ship``, ``help``, ``baseline``,
            ``cheaper``, ``expected`` and ``per_task`` of it; it also has ``per_task_best`` (the plan to take for each task, by
            validation), ``best_on_validation`` and ``cost_name``.

    Raises:
        DataError: If there is no finished run, a plan has no record, or predictions do not fit the rows.
    """
    # A plan of which every seed failed is no finalist.
    finals = {name: list(runs) for name, runs in finals.items() if runs}
    if not finals:
        raise DataError("There is no finished run to judge. See the messages of the race for why the plans failed.")
    unknown = [name for name in finals if name not in plans]
    if unknown:
        raise DataError(f"There is no plan record for {', '.join(unknown)}; the plans are {', '.join(plans)}.")
    controls = {task: list(runs) for task, runs in controls.items() if runs}
    # Controls share the resamples of the plans, so that both can be compared in pairs.
    arms = {**finals, **{_control_arm(task): _only(task, runs) for task, runs in controls.items()}}
    bank = ScoreBank(suite, arms, num_resamples=num_resamples, seed=seed, weights=weights)
    table = ValidationTable(suite, finals, plans, weights)
    combined = [name for name in finals if is_combined(plans[name])]
    mixed = [name for name in combined if plans_of_tasks(plans[name])]
    averages = [name for name in combined if name not in mixed]
    choice = choose_plan(table, finals, ledgers, limits or {}, averages=averages, mixed=mixed, tolerance=tolerance, prefer=prefer)
    pairs = pairs_to_judge(plans, finals, controls, table)
    judge = Judge(
        bank=bank,
        table=table,
        plans={name: plans[name] for name in finals},
        choice=choice,
        ledgers=ledgers,
        limits=limits or {},
        tolerance=tolerance,
        over_plans=over_plans,
    )
    gains = {plan: {row["task"]: row for row in judge.rows(plan, other)} for plan, other in pairs}
    checks = {
        plan: {task: (plan, _control_arm(task)) for task, runs in controls.items() if runs[0].plan_name == plan}
        for plan, _ in pairs
    }
    control_results = [row for plan, rows in gains.items() for row in control_rows(bank, checks[plan], rows)]
    pooled = {plan: pooled_control(bank, checks[plan], other) for plan, other in pairs}
    words = None
    if affinity:
        labels = {row["task"]: row["label"] for row in control_results}
        words = judge_pairs(affinity, labels or None)
    sources = source_rows(bank, table, plans, finals)
    verdict = judge.verdict(pairs, control_results, pooled, {**(affinity or {}), "words": words}, text.source_sentence(sources))
    result = {
        "plans": judge.plan_entries(_transfer_bank(suite, finals, num_resamples, seed)),
        "comparisons": judge.comparisons(),
        "source_effect": sources,
        "controls": control_results,
        "pair_words": words,
        "pareto": judge.pareto(),
        **({"overall": judge.overall()} if over_plans else {}),
        "verdict": {**verdict, "prefer": prefer, "weights": dict(weights or {})},
    }
    return dict(_clean(result))


def _control_arm(task: str) -> str:
    return f"control of {task}"


def _only(task: str, runs: Sequence[FinalRun]) -> list[FinalRun]:
    """Return control runs with the kept task's predictions only: those of shuffled tasks mean nothing."""
    return [replace(run, predictions={task: run.predictions[task]}) for run in runs if task in run.predictions]


def _transfer_bank(suite: Suite, finals: Mapping[str, Sequence[FinalRun]], num_resamples: int, seed: int) -> ScoreBank | None:
    if not len(suite.splits.get("transfer", ())) or not any(run.transfer_predictions for runs in finals.values() for run in runs):
        return None
    return ScoreBank(suite, finals, split="transfer", num_resamples=num_resamples, seed=seed)


def _clean(value: Any) -> Any:
    """Return JSON without NaN and infinity: they become None."""
    if isinstance(value, Mapping):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, Interval):
        return _clean(value.to_json())
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
