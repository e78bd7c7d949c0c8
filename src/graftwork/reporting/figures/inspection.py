"""Plots of what a plan learns from: importance of columns, and the learning curve."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import interval, is_number, number
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["curve_figure", "importance_figure"]

MOST_BARS = 15
HEIGHT = 340


def importance_figure(name: str, title: str, metric: str, rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the importance of columns for one task, or None without any.

    Args:
        name: Identifier in the page.
        title: The task.
        metric: What its metric is called.
        rows: Columns with ``value``, ``low`` and ``high``, the most important first.
    """
    known = [row for row in rows if is_number(row.get("value"))]
    if not known:
        return None
    shown = known[:MOST_BARS]
    # Plotly draws from below; names that shortening made equal stay apart by their places.
    drawn = list(reversed(shown))
    places = list(range(len(drawn)))
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [row["value"] for row in drawn],
        "y": places,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [_length(row, "high") for row in drawn],
            "arrayminus": [_length(row, "low") for row in drawn],
            "color": "var(--ink-3)",
            "thickness": 2,
            "width": 0,
        },
        "marker": {"size": 10, "color": "var(--accent)", "opacity": 1},
        "text": [f"{plot_text(row['column'])}<br>{interval(row)}" for row in drawn],
        "hovertemplate": "%{text}<extra></extra>",
    }
    more = f" The {len(shown)} most important of {len(known)} columns." if len(known) > len(shown) else ""
    return Figure(
        name=name,
        summary=f"{title}: by how much its {metric} gets worse with a column shuffled; bars are 95 % intervals.{more}",
        table=Table(
            caption=f"Importance of columns for {title} ({metric} lost with the column shuffled)",
            headers=["Column", "Importance", "95 % interval"],
            rows=[[str(row["column"]), Cell(number(row["value"])), Cell(_ends(row))] for row in known],
        ),
        data=[dots],
        layout=layout(
            90 + 26 * len(drawn),
            xaxis=axis(f"{metric} lost", zeroline=True, zerolinewidth=2, zerolinecolor="var(--ink-3)"),
            yaxis=axis(
                showgrid=False,
                zeroline=False,
                tickmode="array",
                tickvals=places,
                ticktext=[plot_text(shorten(str(row["column"]), 28)) for row in drawn],
                range=[-0.6, len(drawn) - 0.4],
            ),
        ),
    )


def _length(row: Mapping[str, Any], end: str) -> float:
    """Return how far an end of the interval is from the value; 0 without an interval."""
    bound = row.get(end)
    return abs(float(bound) - float(row["value"])) if is_number(bound) and bound is not None else 0.0


def _ends(row: Mapping[str, Any]) -> str:
    return f"{number(row.get('low'))} to {number(row.get('high'))}" if is_number(row.get("low")) else "not measured"


def curve_figure(name: str, title: str, metric: str, found: Mapping[str, Any]) -> Figure | None:
    """Return the learning curve of one task, or None without points.

    Args:
        name: Identifier in the page.
        title: The task.
        metric: What its metric is called.
        found: One of ``tasks`` of ``learning_curve``.
    """
    points, curve = list(found.get("points") or ()), dict(found.get("curve") or {})
    if len(points) < 2 or not curve.get("rows"):
        return None
    rows = list(curve["rows"])
    thin = {"type": "scatter", "mode": "lines", "x": rows, "hoverinfo": "skip"}
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": [one["rows"] for one in points],
        "y": [one["value"] for one in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [_length(one, "high") for one in points],
            "arrayminus": [_length(one, "low") for one in points],
            "color": "var(--ink-3)",
            "thickness": 1.5,
            "width": 0,
        },
        "marker": {"size": 9, "color": "var(--accent)"},
        "text": [f"{one['rows']:,} training rows<br>{interval(one)}" for one in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    ticks = [*(one["rows"] for one in points), 2 * points[-1]["rows"]]
    return Figure(
        name=name,
        summary=f"{title}: {metric} on test rows by training rows. The line is a power law through the points; its last part, up to "
        "twice the rows, was not measured.",
        table=Table(
            caption=f"Learning curve of {title} ({metric})",
            headers=["Training rows", metric, "95 % interval"],
            rows=[[f"{one['rows']:,}", Cell(number(one["value"])), Cell(_ends(one))] for one in points],
        ),
        data=[
            {**thin, "y": curve["low"], "line": {"color": "var(--ink-4)", "width": 1}},
            {
                **thin,
                "y": curve["high"],
                "line": {"color": "var(--ink-4)", "width": 1},
                "fill": "tonexty",
                "fillcolor": "var(--accent-soft)",
            },
            {**thin, "y": curve["value"], "line": {"color": "var(--accent)", "width": 2, "dash": "dot"}},
            dots,
        ],
        layout=layout(
            HEIGHT,
            xaxis=axis(
                "training rows (each step is twice as many)",
                type="log",
                zeroline=False,
                range=[math.log10(rows[0]) - 0.06, math.log10(rows[-1]) + 0.06],
                tickmode="array",
                tickvals=ticks,
                ticktext=[f"{tick:,}" for tick in ticks],
            ),
            yaxis=axis(metric, zeroline=False),
        ),
    )
