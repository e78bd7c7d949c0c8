"""Plots of judged source data: votes covered by the classes that are kept, and the relevance of source tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import number, share
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["coverage_figure", "relevance_figure"]

_MOST = 40
"""Bars that are shown."""


def coverage_figure(rows: Sequence[Mapping[str, Any]], covered: float) -> Figure | None:
    """Return the share of votes that the first classes have together, or None with fewer than two classes.

    Args:
        rows: Rows of the result, those to keep first.
        covered: Share of votes that is asked for.
    """
    if len(rows) < 2:
        return None
    kept = sum(bool(row["keep"]) for row in rows)
    places = list(range(1, len(rows) + 1))
    table = Table(
        "Votes that the first classes have together",
        ["Classes kept", "Last one", "Votes covered"],
        [
            [Cell(str(place)), Cell(str(row["name"]), numeric=False), Cell(share(row["covered"]))]
            for place, row in zip(places, rows, strict=True)
        ],
    )
    return Figure(
        name="coverage",
        summary=f"Share of the target's votes that the most voted classes have together. The first {kept} have {share(covered)}.",
        table=table,
        data=[
            {
                "type": "scatter", "mode": "lines", "x": places, "y": [100 * row["covered"] for row in rows],
                "line": {"color": "var(--accent)", "shape": "hv"}, "customdata": [plot_text(row["name"]) for row in rows],
                "hovertemplate": "%{x} classes, last: %{customdata}<br>%{y:.1f} % of the votes<extra></extra>",
            },
            {
                "type": "scatter", "mode": "markers", "x": [kept], "y": [100 * rows[kept - 1]["covered"]], "hoverinfo": "skip",
                "marker": {"size": 11, "color": "var(--accent)"},
            },
        ],
        layout=layout(320, xaxis=axis("classes kept"), yaxis=axis("votes covered, %", range=[0, 103])),
    )  # fmt: skip


def relevance_figure(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the relevance of source tasks with intervals, or None without any.

    Args:
        rows: Rows of the result, the most relevant first.
    """
    if not rows:
        return None
    shown = list(rows[:_MOST])[::-1]
    table = Table(
        "Relevance of each source task",
        ["Task", "Relevance", "Low", "High"],
        [[str(row["name"]), *(Cell(number(row[key])) for key in ("share", "low", "high"))] for row in rows],
    )
    return Figure(
        name="relevance",
        summary="Relevance of the source tasks to the target task, as shares of 1, with the range of 95 % of the half-samples.",
        table=table,
        data=[
            {
                "type": "bar", "orientation": "h", "x": [row["share"] for row in shown],
                "y": [plot_text(shorten(str(row["name"]))) for row in shown], "marker": {"color": "var(--accent)"},
                "error_x": {
                    "type": "data", "symmetric": False, "array": [row["high"] - row["share"] for row in shown],
                    "arrayminus": [row["share"] - row["low"] for row in shown], "color": "var(--ink-3)",
                },
                "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
            }
        ],
        layout=layout(90 + 26 * len(shown), xaxis=axis("relevance"), yaxis=axis()),
    )  # fmt: skip
