"""Tables of a comparison: the leaderboard with a row a plan, what every plan was given, and all of it as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.core.records import TaskSpec
from graftwork.reporting.compare_view import CompareView
from graftwork.reporting.formatting import MISSING, count, duration, interval, is_number, number, percent_interval
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.tables import plain_text, render_table, wrap_text
from graftwork.reporting.words import comparison_mark, metric_words

__all__ = ["budget_table", "format_comparison", "leaderboard_table", "seeds_table", "standings_table", "task_table"]

_STATES = {"diverged": "diverged", "failed": "failed", "left out": "left out", "partly": "some seeds failed"}


def _probability(value: Any) -> str:
    if not is_number(value):
        return MISSING
    return "<\u00a00.001" if value < 0.001 else f"{value:.3f}"


def _plan_cell(view: CompareView, row: Mapping[str, Any]) -> Cell:
    name = str(row["plan"])
    notes = ["reference"] if name == view.reference else [view.group(name)] if view.group(name) else []
    notes += ["chosen on validation"] if name == view.choice else []
    notes += [_STATES[row["status"]]] if row.get("status") in _STATES else []
    place = f"{row['rank']}.\u00a0" if row.get("rank") else ""
    return Cell(f"{place}{name}", note=", ".join(notes), strong=name == view.choice, numeric=False)


def leaderboard_table(view: CompareView) -> Table | None:
    """Return a row a plan: delta-m with its judgement, then every task's primary metric; plans without scores say why."""
    rows: list[list[str | Cell]] = []
    for row in view.leaderboard:
        name, first = str(row["plan"]), _plan_cell(view, row)
        # No score, so the reason takes the place of the numbers.
        if not row.get("rank"):
            rows.append([first, Cell("no score", note=_reason(row), numeric=False), *([Cell("")] * (len(view.tasks) + 1))])
            continue
        delta = "0" if name == view.reference else percent_interval(row.get("delta_m"))
        rows.append(
            [
                first,
                Cell(delta, mark=comparison_mark(row.get("label")), note=_reason(row).partition(": ")[0]),
                Cell(_probability(row.get("p_value")) if name != view.reference else ""),
                *(_score_cell(view, name, task) for task in view.tasks),
            ]
        )
    if not rows:
        return None
    heads = [Cell(task.name, note=metric_words(view.metric(task))) for task in view.tasks]
    return Table(
        caption=(
            "Delta-m: mean relative change against separate models in percent, plus is better; brackets: 95 % intervals "
            "over test rows and seeds. p: paired over seeds, Holm's correction over plans; signs at tasks: over plans and "
            "tasks."
        ),
        headers=[Cell("Plan", numeric=False), "Delta-m", "p", *heads],
        rows=rows,
    )


def _reason(row: Mapping[str, Any]) -> str:
    return (str(row.get("message") or "").splitlines() or [""])[0] if row.get("status") != "ok" else ""


def _score_cell(view: CompareView, plan: str, task: TaskSpec) -> Cell:
    compared = view.comparison(plan, task.name) if plan != view.reference else {}
    mark = comparison_mark(compared.get("label"))
    return Cell(
        interval(view.score(plan, task)),
        note=percent_interval(compared.get("difference")) if mark else "",
        mark=mark,
        strong=plan == view.choice,
    )


def budget_table(view: CompareView) -> Table | None:
    """Return what every plan's training was given and took: steps, rows, seconds, seeds."""
    rows: list[list[str | Cell]] = []
    for row in view.leaderboard:
        ledger = (view.plans.get(str(row["plan"])) or {}).get("ledger") or {}
        if ledger:
            seeds = ", ".join(map(str, row.get("seeds") or ()))
            rows.append(
                [
                    str(row["plan"]),
                    Cell(f"{ledger.get('steps') or 0:,}"),
                    Cell(f"{ledger.get('samples') or 0:,}"),
                    Cell(duration(ledger.get("wall_seconds") or None)),
                    Cell(seeds),
                ]
            )
    if not rows:
        return None
    return Table(
        caption="What each training was given and took (steps are rounds for trees; seconds are means over seeds)",
        headers=["Plan", "Steps", "Rows seen", "Training time", "Seeds"],
        rows=rows,
    )


def seeds_table(view: CompareView) -> Table | None:
    """Return the primary metric of every plan, seed and task."""
    rows: list[list[str | Cell]] = []
    for row in view.leaderboard:
        # Ranked or not: a plan with a failed seed has scores of the others.
        for seed in (view.plans.get(str(row["plan"])) or {}).get("per_seed") or ():
            scores = seed.get("test") or {}
            values = [Cell(number((scores.get(task.name) or {}).get(view.metric(task)), 4)) for task in view.tasks]
            rows.append([f"{row['plan']}, seed {seed.get('seed')}", *values])
    return Table("Every seed", ["Plan", *(task.name for task in view.tasks)], rows) if rows else None


def standings_table(view: CompareView) -> Table | None:
    """Return the leaderboard with the few costs that fit a terminal, without the tasks."""
    rows: list[list[str | Cell]] = []
    for row in view.leaderboard:
        name = str(row["plan"])
        ledger = (view.plans.get(name) or {}).get("ledger") or {}
        latency, mark = ledger.get("latency_ms_batch1"), comparison_mark(row.get("label"))
        delta = (
            "reference"
            if name == view.reference
            else percent_interval(row.get("delta_m"))
            if row.get("rank")
            else _STATES.get(str(row.get("status")), "no score")
        )
        rows.append(
            [
                f"{row['rank']}. {name}" if row.get("rank") else name,
                f"{mark.sign} {delta}" if mark else delta,
                _probability(row.get("p_value")) if mark else "",
                count(ledger.get("parameters_stored")),
                f"{number(latency)} ms" if latency else MISSING,
                duration(ledger.get("wall_seconds") or None),
            ]
        )
    headers = ["Plan", "Delta-m", "p", "Stored", "1 row", "Training"]
    return (
        Table("Mean change over tasks against separate models, 95 % interval; costs of one training", headers, rows)
        if rows
        else None
    )


def task_table(view: CompareView) -> Table | None:
    """Return every task's primary metric, a row a plan, with the sign of its judgement."""
    rows: list[list[str | Cell]] = []
    for row in view.leaderboard:
        name = str(row["plan"])
        cells = []
        for task in view.tasks:
            mark = comparison_mark(view.comparison(name, task.name).get("label")) if name != view.reference else None
            cells.append(f"{number((view.score(name, task) or {}).get('value'))} {mark.sign if mark else ' '}")
        if row.get("rank"):
            rows.append([name, *cells])
    heads = [Cell(task.name, note=metric_words(view.metric(task)).partition(",")[0]) for task in view.tasks]
    return (
        Table(
            "Test scores; ▲ better, ▼ worse, △ ▽ probably so, = no difference, ? unclear, all against separate models",
            ["Plan", *heads],
            rows,
        )
        if rows
        else None
    )


def format_comparison(result: Mapping[str, Any], width: int = 100) -> str:
    """Return a summary of a comparison without colours or control characters.

    Args:
        result: Content of ``result.json``.
        width: Columns of the terminal, at least 40.

    Raises:
        FileFormatError: If it is no result of ``graftwork compare``.
    """
    view, width = CompareView(result), max(40, width)
    verdict = view.section("verdict")
    blocks = [wrap_text(str(sentence), width) for sentence in verdict.get("sentences") or ()]
    blocks.append(wrap_text(str(view.section("budget").get("sentence") or ""), width))
    blocks += [wrap_text(f"Note: {plain_text(warning)}", width) for warning in verdict.get("warnings") or ()]
    blocks += [render_table(table, width) for table in (standings_table(view), task_table(view)) if table is not None]
    blocks += [wrap_text(f"{row['plan']}: {_reason(row)}", width) for row in view.leaderboard if _reason(row)]
    advice = view.section("grouping").get("advice") or ()
    if advice:
        blocks.append(
            "\n".join(["Which tasks to train together:", *(wrap_text(f"- {plain_text(line)}", width) for line in advice)])
        )
    return "\n\n".join(block for block in blocks if block) + "\n"
