"""What a notebook shows of a finished run: the verdict in a sentence and the leaderboard, as HTML without scripts or styles of
other origin. All text of the user's data is escaped."""

from __future__ import annotations

import html
from typing import Any

from graftwork.reporting.formatting import MISSING, count, duration, interval, number, percent_interval
from graftwork.reporting.leaderboard import leaderboard_rows
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import plain_text
from graftwork.reporting.words import metric_words

__all__ = ["notebook_html"]

_MOST_TASKS = 8
_MOST_PLANS = 25


def notebook_html(view: ResultView, folder: str) -> str:
    """Return the first sentence of the verdict, the leaderboard, and where the rest is.

    Args:
        view: A result of ``fit`` or ``compare``.
        folder: The run folder, as it is shown.
    """
    sentences = view.section("verdict").get("sentences") or ["There is no verdict."]
    rows, tasks = leaderboard_rows(view), view.tasks[:_MOST_TASKS]
    heads = ["plan", "group", "delta-m", *(f"{task.name} ({metric_words(view.metric(task))})" for task in tasks)]
    heads += ["parameters", "training", "1 row", ""]
    lines = [_line("th", heads), *(_line("td", _cells(view, row), strong=row["chosen"]) for row in rows[:_MOST_PLANS])]
    left = [
        f"{hidden} more {what}"
        for hidden, what in ((len(rows) - _MOST_PLANS, "plans"), (len(view.tasks) - len(tasks), "tasks"))
        if hidden > 0
    ]
    rest = f"{' and '.join(left)} in <code>leaderboard()</code>. " if left else ""
    return (
        f"<div><p>{_text(sentences[0])}</p><table><tbody>{''.join(lines)}</tbody></table>"
        f"<p>{rest}Test scores with 95 % intervals. Run folder: <code>{_text(folder)}</code></p></div>"
    )


def _text(value: Any) -> str:
    return html.escape(plain_text(value))


def _line(tag: str, cells: list[str], *, strong: bool = False) -> str:
    weight = ' style="font-weight:bold"' if strong else ""
    return f"<tr{weight}>{''.join(f'<{tag}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _cells(view: ResultView, row: dict[str, Any]) -> list[str]:
    name = row["plan"]
    entry = view.plans.get(name, {})
    delta = "reference" if name == view.reference else percent_interval(entry.get("delta_m"))
    latency = MISSING if number(row["latency_ms"]) == MISSING else f"{number(row['latency_ms'])} ms"
    scores = [interval(view.score(name, task)) for task in view.tasks[:_MOST_TASKS]]
    costs = [count(row["parameters"]), duration(row["seconds"]), latency]
    return [name, row["group"] or "", delta, *scores, *costs, "chosen" if row["chosen"] else row["note"]]
