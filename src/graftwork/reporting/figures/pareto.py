"""Pareto plot: what a plan costs against what it scores; plans on the front are not beaten in both."""

from __future__ import annotations

import math
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import is_number, number, percent
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import cost_words

__all__ = ["pareto_figure"]


_MOST_HALVED = 300
"""Ratio of the largest to the smallest cost from which a log axis has powers of ten only."""


def pareto_figure(view: ResultView, cost: str = "") -> Figure | None:
    """Return the plot, or None without points.

    Args:
        view: The result.
        cost: Entry of the ledger to plot against, where the result has points of several; empty takes all points.
    """
    points = [row for row in view.rows("pareto") if is_number(row.get("cost")) and is_number(row.get("score"))]
    points = [row for row in points if not cost or row.get("cost_name") == cost]
    if not points:
        return None
    # By cost: neighbours in the list are neighbours on the plot, which placing the labels relies on.
    points.sort(key=lambda row: (row["cost"], -row["score"]))
    cost_name = cost_words(str(points[0].get("cost_name") or "cost"))
    front = [row for row in points if row.get("on_front")]
    # Costs of very different sizes would crowd at one edge of a linear axis.
    wide = points[0]["cost"] > 0 and points[-1]["cost"] / points[0]["cost"] > 8

    def color(row: dict[str, object]) -> str:
        return "var(--accent)" if row.get("plan") == view.choice else "var(--ink-2)" if row.get("on_front") else "var(--ink-3)"

    def symbol(row: dict[str, object]) -> str:
        return "diamond" if row.get("plan") == view.choice else "circle" if row.get("on_front") else "circle-open"

    hover = [
        f"{plot_text(view.title(str(row.get('plan'))))}<br>{plot_text(cost_name)}: "
        f"{_cost(row['cost'])}<br>score: {percent(row['score'])}"
        for row in points
    ]
    # Few points have all their names; of many only those that matter.
    labelled = {str(row.get("plan")) for row in (points if len(points) <= 8 else front)} | {view.choice, view.reference}
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [row["cost"] for row in front],
            "y": [row["score"] for row in front],
            "line": {"color": "var(--line-strong)", "width": 2, "shape": "hv", "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [row["cost"] for row in points],
            "y": [row["score"] for row in points],
            "text": [plot_text(shorten(str(row.get("plan")), 20)) if row.get("plan") in labelled else "" for row in points],
            "textposition": _text_positions([row["cost"] for row in points], [row["score"] for row in points], wide),
            "textfont": {"size": 12, "color": "var(--ink-2)"},
            "cliponaxis": False,
            # The visible text is the short name; the hover text needs a place of its own.
            "customdata": hover,
            "hovertemplate": "%{customdata}<extra></extra>",
            "marker": {
                "opacity": 1,
                "size": [15 if row.get("plan") == view.choice else 10 for row in points],
                "symbol": [symbol(row) for row in points],
                "color": [color(row) for row in points],
                "line": {"width": 2, "color": [color(row) for row in points]},
            },
        },
    ]
    names = ", ".join(str(row.get("plan")) for row in front)
    summary = f"Score (delta-m in percent, up is better) against {cost_name} (left is cheaper). "
    summary += f"Filled points are on the Pareto front, no plan beats them in both: {names}." if front else ""
    summary += " The diamond is the chosen plan." if any(row.get("plan") == view.choice for row in points) else ""
    table = Table(
        caption=f"Score and {cost_name} of each plan",
        headers=["Plan", cost_name[:1].upper() + cost_name[1:], "Score", "On the front"],
        rows=[
            [
                str(row.get("plan")),
                Cell(_cost(row["cost"], 4)),
                Cell(percent(row["score"])),
                "yes" if row.get("on_front") else "no",
            ]
            for row in points
        ],
    )
    return Figure(
        name=f"pareto-{cost}" if cost else "pareto",
        summary=summary,
        table=table,
        data=data,
        layout=layout(
            380,
            xaxis=axis(
                plot_text(cost_name) + (" (log scale)" if wide else ""),
                type="log" if wide else "linear",
                **_cost_range([row["cost"] for row in points], wide),
            ),
            yaxis=axis("delta-m in percent", zeroline=True),
            margin={"l": 8, "r": 16, "t": 24, "b": 8},
        ),
    )


def _text_positions(costs: list[float], scores: list[float], wide: bool) -> list[str]:
    """Labels near the edges stand towards the middle, so that none is cut off; of points side by side, one has its label
    below."""
    scaled = [math.log10(cost) if wide else cost for cost in costs]
    low, high = scaled[0], scaled[-1]
    span, height = (high - low) or 1.0, (max(scores) - min(scores)) or 1.0
    places = [(value - low) / span for value in scaled]
    sides: list[str] = []
    for index, place in enumerate(places):
        above = [
            other
            for other in range(index)
            if sides[other] == "top" and place - places[other] < 0.3 and abs(scores[index] - scores[other]) < 0.07 * height
        ]
        sides.append("bottom" if above else "top")
    return [f"{side} {'left' if place > 0.7 else 'right' if place < 0.3 else 'center'}" for side, place in zip(sides, places)]


def _cost_range(costs: list[float], wide: bool) -> dict[str, object]:
    low, high = min(costs), max(costs)
    if wide:
        # Ranges of a log axis are given as exponents.
        room = 0.08 * (math.log10(high) - math.log10(low))
        # Plotly's own ticks of a log axis repeat bare digits (2, 5); powers of ten and their halves with units read better.
        ticks = [
            factor * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            # Over many powers the halves would crowd on a phone.
            for factor in ((1, 3) if high / low < _MOST_HALVED else (1,))
        ]
        return {
            "range": [math.log10(low) - room, math.log10(high) + room],
            "tickmode": "array",
            "tickvals": ticks,
            "ticktext": [_short(tick) for tick in ticks],
        }
    # All costs equal: some room all the same.
    room = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
    return {"range": [low - room, high + room]}


def _short(value: float) -> str:
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g}"


def _cost(value: float, digits: int = 3) -> str:
    """Return a cost: whole numbers, such as counts of parameters, whole."""
    return f"{value:,.0f}" if float(value).is_integer() else number(value, digits)
