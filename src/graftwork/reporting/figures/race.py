"""Race plot: the selection score of every plan at every rung, and who left when and why."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import MISSING, is_number, number
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["race_fates", "race_figure"]

_TROUBLE = {"diverged": "diverged", "failed": "failed", "excluded": "excluded by a limit", "stopped": "stopped"}


def _history(view: ResultView) -> dict[str, dict[int, list[dict[str, Any]]]]:
    history: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in view.rows("race"):
        history[str(row.get("plan"))][int(row.get("rung") or 0)].append(row)
    return history


def _scores(rungs: dict[int, list[dict[str, Any]]]) -> dict[int, float]:
    means = {}
    for rung, rows in sorted(rungs.items()):
        values = [row["score"] for row in rows if is_number(row.get("score"))]
        if values:
            means[rung] = fmean(values)
    return means


def _order(history: dict[str, dict[int, list[dict[str, Any]]]], scores: dict[str, dict[int, float]]) -> list[str]:
    return sorted(history, key=lambda plan: (-max(history[plan]), -(list(scores[plan].values()) or [float("-inf")])[-1]))


def race_fates(view: ResultView) -> dict[str, str]:
    """Return what became of each plan of the race in a few words; those that stayed longest, with the best scores, first."""
    history = _history(view)
    scores = {plan: _scores(rungs) for plan, rungs in history.items()}
    last = max((rung for rungs in history.values() for rung in rungs), default=0)
    found = {}
    for plan in _order(history, scores):
        _, left, _, _, why = _fate(view, plan, history, scores, last)
        words = why.text if isinstance(why, Cell) else why
        found[plan] = words if left == "stayed" else f"left after {left}: {words}"
    return found


def race_figure(view: ResultView) -> Figure | None:
    """Return the plot, or None if nothing ran."""
    history = _history(view)
    if not history:
        return None
    scores = {plan: _scores(rungs) for plan, rungs in history.items()}
    last = max(rung for rungs in history.values() for rung in rungs)
    order = _order(history, scores)
    # Drawn in this order, the best line lies on top.
    data = [_line(view, plan, history[plan], scores[plan]) for plan in reversed(order)]
    stayed = [plan for plan in order if plan in view.finalists]
    table = Table(
        caption="When each plan left the race, and why",
        headers=["Plan", "Left after", "Steps", "Last score", "Why"],
        rows=[_fate(view, plan, history, scores, last) for plan in order],
    )
    ticks = sorted({rung for rungs in history.values() for rung in rungs})
    return Figure(
        name="race",
        summary=(
            f"Selection score on the validation rows (up is better) of {len(history)} plan{'s' * (len(history) != 1)} over {len(ticks)} rung{'s' * (len(ticks) != 1)}. "
            f"To the end: {', '.join(stayed) if stayed else 'none'}. A cross marks a plan that failed, diverged or was stopped."
        ),
        table=table,
        data=data,
        layout=layout(
            400,
            xaxis=axis(
                "rung and steps",
                tickmode="array",
                tickangle=0,
                tickvals=ticks,
                ticktext=[_rung_label(history, rung) for rung in ticks],
                showgrid=False,
                zeroline=False,
                range=[min(ticks) - 0.1, max(ticks) + 0.08],
            ),
            yaxis=axis("selection score"),
            margin={"l": 8, "r": 16 + 7 * max((len(shorten(plan, 16)) for plan in stayed), default=0), "t": 12, "b": 8},
            annotations=_end_labels(view, {plan: scores[plan][last] for plan in stayed if last in scores[plan]}, scores),
        ),
    )


def _rung_label(history: dict[str, dict[int, list[dict[str, Any]]]], rung: int) -> str:
    """Name a rung by its number and steps; trees count rounds, so that plans of one rung may differ."""
    steps = [int(row["steps"]) for rungs in history.values() for row in rungs.get(rung, ()) if row.get("steps")]
    if not steps:
        return f"rung {rung + 1}"
    span = f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,}–{max(steps):,}"
    return f"rung {rung + 1}<br>{span}"


def _line(view: ResultView, plan: str, rungs: dict[int, list[dict[str, Any]]], scores: dict[int, float]) -> dict[str, Any]:
    stays, chosen = plan in view.finalists, plan == view.choice
    end_rows = rungs[max(rungs)]
    broken = any(row.get("status") in _TROUBLE for row in end_rows)
    color = "var(--accent)" if chosen else "var(--ink-2)" if stays else "var(--ink-4)"
    xs = list(scores)
    ends = ["x" if broken else "diamond" if chosen else "circle"]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": xs,
        "y": list(scores.values()),
        "cliponaxis": False,
        "line": {"color": color, "width": 3 if chosen else 2 if stays else 1.5},
        "marker": {
            "opacity": 1,
            "color": color,
            # Only the end of a line is drawn large, with the sign of what became of it.
            "size": [5] * max(0, len(xs) - 1) + [11 if chosen else 8],
            "symbol": ["circle"] * max(0, len(xs) - 1) + ends,
        },
        "customdata": [
            f"{plot_text(view.title(plan))}<br>rung {rung + 1}, score {number(score)}" for rung, score in scores.items()
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "name": plot_text(plan),
    }


def _end_labels(view: ResultView, ends: dict[str, float], scores: dict[str, dict[int, float]]) -> list[dict[str, Any]]:
    """Names beside the ends of the lines that stayed, pushed apart where two scores are close."""
    every = [score for plan in scores.values() for score in plan.values()]
    gap = (max(every) - min(every)) * 0.055 if every else 0.0
    labels, floor = [], float("-inf")
    for plan, score in sorted(ends.items(), key=lambda item: item[1]):
        # Pushed up from the lowest: labels keep the order of the scores.
        floor = max(score, floor + gap)
        labels.append(
            {
                "xref": "paper",
                "x": 1.0,
                "xshift": 6,
                "y": floor,
                "text": plot_text(shorten(plan, 16)),
                "showarrow": False,
                "xanchor": "left",
                "font": {"size": 12, "color": "var(--accent)" if plan == view.choice else "var(--ink-2)"},
            }
        )
    return labels


def _fate(
    view: ResultView,
    plan: str,
    history: dict[str, dict[int, list[dict[str, Any]]]],
    scores: dict[str, dict[int, float]],
    last: int,
) -> list[str | Cell]:
    rung = max(history[plan])
    rows = history[plan][rung]
    score = scores[plan].get(rung)
    steps = max((row.get("steps") or 0) for row in rows)
    trouble = next((row for row in rows if row.get("status") in _TROUBLE), None)
    # Trouble explains more than the rank at which it came.
    if trouble is not None:
        message = str(trouble.get("message") or "")
        why = _TROUBLE[trouble["status"]] + (f": {message}" if message else "")
    elif plan in view.finalists:
        why = "chosen" if plan == view.choice else "finalist"
    elif rung == last:
        why = "reached the last rung"
    else:
        peers = sorted((plans[rung] for plans in scores.values() if rung in plans), reverse=True)
        why = f"rank {peers.index(score) + 1} of {len(peers)} at this rung" if score is not None else "no score"
    stayed = plan in view.finalists and trouble is None
    return [
        plan,
        "stayed" if stayed else f"rung {rung + 1}",
        Cell(f"{steps:,}"),
        Cell(number(score) if score is not None else MISSING),
        Cell(why, numeric=False),
    ]
