"""Forest plot: delta-m of every finalist with its interval, against separate models at zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import is_number, percent, percent_interval
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["forest_figure"]


def forest_figure(view: ResultView) -> Figure | None:
    """Return the plot, or None if no finalist has a delta-m."""
    rows: list[tuple[str, dict[str, Any]]] = []
    for name in view.finalists:
        value = view.plans[name].get("delta_m")
        if value and is_number(value.get("value")) and name != view.reference:
            rows.append((name, value))
    if not rows:
        return None
    # Plotly draws from below, so the best comes last.
    rows.sort(key=lambda item: item[1]["value"])
    labels = [plot_text(shorten(name)) for name, _ in rows]
    centers = [float(value["value"]) for _, value in rows]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": centers,
        "y": labels,
        "error_x": {
            "type": "data",
            "symmetric": False,
            # Lengths, not ends: plotly draws them from the point outwards.
            "array": [max(0.0, _bound(value, "high") - value["value"]) for _, value in rows],
            "arrayminus": [max(0.0, value["value"] - _bound(value, "low")) for _, value in rows],
            "color": "var(--ink-3)",
            "thickness": 2,
            "width": 0,
        },
        "marker": {
            "opacity": 1,
            "size": [14 if name == view.choice else 10 for name, _ in rows],
            "symbol": ["diamond" if name == view.choice else "circle" for name, _ in rows],
            "color": ["var(--accent)" if name == view.choice else "var(--ink-2)" for name, _ in rows],
        },
        "text": [f"{plot_text(view.title(name))}<br>delta-m {percent_interval(value)}" for name, value in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    best, value = rows[-1]
    summary = (
        f"Delta-m (mean relative change over all tasks against separate models) of {len(rows)} plans; right of zero is better. "
        f"Highest: {best} with {percent_interval(value)}."
    )
    if view.choice in dict(rows):
        summary += " The diamond is the chosen plan."
    table = Table(
        caption="Delta-m of the finalists, in percent against separate models",
        headers=["Plan", "Delta-m", "Interval"],
        rows=[
            [
                name,
                Cell(percent(value["value"])),
                Cell(percent_interval(value).partition(" [")[2].rstrip("]").replace(",", " to")),
            ]
            for name, value in reversed(rows)
        ],
    )
    return Figure(
        name="forest",
        summary=summary,
        table=table,
        data=[trace],
        layout=layout(
            90 + 38 * len(rows),
            xaxis=axis("delta-m in percent (better to the right)", zeroline=True, zerolinewidth=2, zerolinecolor="var(--ink-3)"),
            yaxis=axis(showgrid=False, type="category", range=[-0.6, len(rows) - 0.4]),
        ),
    )


def _bound(value: Mapping[str, Any], end: str) -> float:
    """Return an end of the interval; the value itself if there is no interval. (A bound of 0 is one.)"""
    bound = value.get(end)
    return float(value["value"] if bound is None else bound)
