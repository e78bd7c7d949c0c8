"""From finished trainings to ``result.json`` and ``report.html``: scores, corrected comparisons, leaderboard, costs, grouping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.files import write_json
from graftwork.core.records import Ledger, Plan
from graftwork.workflows.compare.budget import budget_sentence
from graftwork.workflows.compare.settings import CompareSettings
from graftwork.workflows.compare.trainings import Trainings
from graftwork.workflows.compare.words import leaderboard_sentences
from graftwork.workflows.runs.auto_groups import suggest_grouping
from graftwork.workflows.runs.context import RunContext
from graftwork.workflows.runs.result_parts import final_runs, job_ledger, result_head, timing, try_last_steps
from graftwork.workflows.runs.run_folder import RunFolder, clean_json
from graftwork.workflows.runs.schedule import Schedule

__all__ = ["PARETO_COSTS", "RESULT_FORMAT", "finish_comparison", "leaderboard"]

RESULT_FORMAT = "graftwork-compare-1"
PARETO_COSTS = ("parameters_stored", "flops_per_sample", "latency_ms_batch1", "wall_seconds")
"""Costs that scores are plotted against, where at least two plans have them."""


def finish_comparison(context: RunContext[CompareSettings], trained: Trainings) -> dict[str, Any]:
    """Judge, and write result and report.

    Raises:
        GraftworkError: If no training ended well.
    """
    run = context.run
    if not trained.finals:
        reasons = [f"{item['plan']}, seed {item['seed']}: {item['message'] or item['status']}" for item in trained.failures]
        reasons += [f"{name}: {reason}" for name, reason in context.schedule.left_out.items()]
        listed = "".join(f"\n  - {reason}" for reason in reasons)
        raise GraftworkError(f"No training ended well, so there is nothing to compare.{listed}\nSee {run.path / 'log.jsonl'}.")
    run.emit("phase", phase="report", jobs=0)
    # Before the report: one that fails can be made again from the result.
    result = clean_json(_result(context, trained))
    write_json(run.result_file, result)

    def report() -> None:
        from graftwork.reporting.compare_report import write_compare_report

        write_compare_report(result, run.path / "report.html")

    try_last_steps(run, result, {"The report could not be written": report})
    return dict(result)


def _result(context: RunContext[CompareSettings], trained: Trainings) -> dict[str, Any]:
    from graftwork.evaluation.choice.verdict import build_verdict

    run, settings, plans, schedule = context.run, context.settings, context.plans, context.schedule
    ledgers = {name: _mean_ledger(run, name, trained) for name in trained.finals}
    judged = build_verdict(
        context.suite,
        final_runs(context, trained.finals),
        controls={},
        affinity=trained.affinity,
        ledgers=ledgers,
        plans=dict(plans),
        seed=settings.seed,
        over_plans=True,
    )
    rows = leaderboard(plans, schedule, trained, judged)
    verdict, reference = dict(judged["verdict"]), judged["verdict"]["reference"]
    separate = verdict["choice"] == reference
    grouping = suggest_grouping(trained.affinity, settings.max_groups, separate_is_chosen=separate)
    verdict["choice_strength"] = verdict.pop("strength")
    verdict["sentences"] = leaderboard_sentences(rows, reference, verdict["choice"])
    verdict["warnings"] = [*verdict["warnings"], *schedule.notes, *_grouping_notes(run, plans)]
    entries = {
        name: {**entry, "plan": plans[name].to_json(), "finalist": True, "ledger": ledgers[name].to_json()}
        for name, entry in judged["plans"].items()
    }
    return {
        **result_head(context, RESULT_FORMAT),
        "budget": {
            "steps": settings.steps,
            "seconds": settings.time_limit,
            "seeds": list(schedule.seeds),
            "sentence": budget_sentence(plans, schedule, steps=settings.steps, seconds=settings.time_limit),
        },
        "leaderboard": rows,
        "failures": trained.failures,
        "plans": entries,
        "comparisons": judged["comparisons"],
        "overall": judged["overall"],
        "pareto": _pareto(entries, ledgers, reference),
        "affinity": None if trained.affinity is None else {**trained.affinity, "words": judged["pair_words"]},
        "gradients": trained.gradients,
        "grouping": grouping,
        "verdict": verdict,
        "timing": timing(run),
    }


def _mean_ledger(run: RunFolder, name: str, trained: Trainings) -> Ledger:
    """Return the costs of a plan: times are means over its seeds, everything else is of the first."""
    jobs = trained.finals[name]
    each = [job_ledger(run, {seed: job}) for seed, job in jobs.items()]
    return replace(
        job_ledger(run, jobs),
        wall_seconds=fmean(item.wall_seconds for item in each),
        cpu_seconds=fmean(item.cpu_seconds for item in each),
    )


def leaderboard(
    plans: Mapping[str, Plan], schedule: Schedule, trained: Trainings, judged: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return one row a plan: best delta-m first, then plans without one, then those that failed or were left out.

    Args:
        plans: Plans by name.
        schedule: Says who was left out and why.
        trained: The trainings.
        judged: From :func:`graftwork.evaluation.choice.verdict.build_verdict` with ``over_plans``.

    Returns:
        ``plan``, ``rank`` (None without scores), ``status`` (``ok``, ``partly`` if some seeds failed, ``diverged``, ``failed``,
        ``left out``), ``message``, ``seeds`` that ended well, ``delta_m``, ``p_value`` and ``label`` against separate models.
    """
    overall = {row["plan"]: row for row in judged["overall"]}
    rows = []
    for name in plans:
        failures = [item for item in trained.failures if item["plan"] == name]
        done = sorted(trained.finals.get(name, {}))
        if not done and not failures and name not in schedule.left_out:
            continue
        # No seed ended and none failed: the plan was left out before it began.
        status = (
            "left out" if not done and not failures else "ok" if not failures else "partly" if done else failures[0]["status"]
        )
        compared = overall.get(name, {})
        rows.append(
            {
                "plan": name,
                "status": status,
                "message": schedule.left_out.get(name, "") if status == "left out" else _failure_words(failures, bool(done)),
                "seeds": done,
                "steps": schedule.horizons.get(name, 0),
                "delta_m": judged["plans"].get(name, {}).get("delta_m"),
                "p_value": compared.get("p_value"),
                "label": compared.get("label"),
            }
        )
    rows.sort(key=_order)
    # Plans without a finished seed are sorted last, so ranks go to the others without gaps.
    ranks = iter(range(1, len(rows) + 1))
    return [{"rank": next(ranks) if row["seeds"] else None, **row} for row in rows]


def _order(row: Mapping[str, Any]) -> tuple[bool, float]:
    value = (row["delta_m"] or {}).get("value")
    return not row["seeds"], -(float("-inf") if value is None else value)


def _failure_words(failures: Sequence[Mapping[str, Any]], partly: bool) -> str:
    if not failures:
        return ""
    seeds = ", ".join(str(item["seed"]) for item in failures)
    return (f"seed{'s' * (len(failures) > 1)} {seeds} {failures[0]['status']}: " if partly else "") + str(failures[0]["message"])


def _pareto(entries: Mapping[str, Any], ledgers: Mapping[str, Ledger], reference: str | None) -> list[dict[str, Any]]:
    from graftwork.evaluation.choice.selection import plan_cost
    from graftwork.evaluation.choice.verdict import pareto_rows

    scores = {name: ((entry["delta_m"] or {}).get("value")) for name, entry in entries.items()}
    known = {name: float("nan") if value is None else float(value) for name, value in scores.items()}
    rows: list[dict[str, Any]] = []
    for cost in PARETO_COSTS if reference is not None else ():
        costs = {name: plan_cost(ledgers[name], cost) for name in entries}
        # NaN is not equal to itself: a cost that was not measured.
        if sum(value == value for value in costs.values()) > 1:
            rows += pareto_rows(costs, known, cost)
    return rows


def _grouping_notes(run: RunFolder, plans: Mapping[str, Plan]) -> list[str]:
    measured = run.state.get("grouping")
    grouped = [name for name, plan in plans.items() if isinstance(plan.train.sharing.settings.get("groups"), list)]
    if measured is None or not grouped:
        return []
    shown = "; ".join(", ".join(group) for group in measured["grouping"]["groups"])
    return [
        f"The groups of `{grouped[0]}` ({shown}) were measured on training rows before, in "
        f"{measured['steps']} steps that its budget does not "
        f"count ({measured['seconds']:.1f} s)."
    ]
