"""Plot of a ranking: the mean rank of each source against the time of its features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import number, share
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["rank_cost_figure"]


def rank_cost_figure(sources: Sequence[Mapping[str, Any]], choice: str) -> Figure | None:
    """Return the plot, or None with fewer than two sources.

    Args:
        sources: Rows of ``sources`` in the result.
        choice: Name of the recommended one.
    """
    if len(sources) < 2:
        return None
    points = sorted(sources, key=lambda row: row["ms_per_row"])
    ranks = [row["standing"]["mean_rank"] for row in points]
    colours = [
        "var(--accent)" if row["name"] == choice else "var(--ink-3)" if row.get("control") else "var(--ink-2)" for row in points
    ]
    hover = [
        f"{plot_text(row['name'])}<br>mean rank {number(row['standing']['mean_rank'])}, first in "
        f"{share(row['standing']['first_share'])}<br>{number(row['ms_per_row'])} ms a row"
        for row in points
    ]
    data = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [row["ms_per_row"] for row in points],
            "y": ranks,
            "error_y": {
                "type": "data",
                "symmetric": False,
                # The axis is turned round, so that up is better; bars keep their own direction.
                "array": [row["standing"]["high"] - row["standing"]["mean_rank"] for row in points],
                "arrayminus": [row["standing"]["mean_rank"] - row["standing"]["low"] for row in points],
                "color": "var(--line-strong)",
                "thickness": 1.5,
            },
            "text": [plot_text(shorten(row["name"].rstrip("/").rpartition("/")[2], 22)) for row in points],
            "textposition": "top center",
            "cliponaxis": False,
            "customdata": hover,
            "hovertemplate": "%{customdata}<extra></extra>",
            "marker": {
                "size": [15 if row["name"] == choice else 10 for row in points],
                "symbol": ["circle-open" if row.get("control") else "circle" for row in points],
                "color": colours,
            },
        }
    ]
    table = Table(
        "Mean rank and time of each source",
        ["Source", "Time of one row", "Mean rank"],
        [
            [str(row["name"]), Cell(f"{number(row['ms_per_row'])} ms"), Cell(number(row["standing"]["mean_rank"]))]
            for row in points
        ],
    )
    return Figure(
        name="rank-costs",
        summary="Mean rank over tasks and scores (up is better) against milliseconds a row (left is cheaper), with the range of 95 % of "
        "the half-samples. The open circle is the untrained trunk.",
        table=table,
        data=data,
        layout=layout(
            380,
            xaxis=axis("milliseconds a row (log scale)", type="log"),
            yaxis=axis("mean rank", autorange="reversed"),
            margin={"l": 8, "r": 24, "t": 24, "b": 8},
        ),
    )
