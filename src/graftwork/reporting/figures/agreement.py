"""Plots of scores against true transfer results: how well each score orders sources, and every source of a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text
from graftwork.reporting.formatting import number
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["agreement_figure"]


def agreement_figure(trust: Mapping[str, Any]) -> list[Figure]:
    """Return a plot of rank correlations with their costs, and one of scores against true results.

    Args:
        trust: ``scores``: rows with ``title``, ``tau``, ``low``, ``high`` and ``seconds``; ``points``: rows with ``target``, ``source``,
            ``title``, ``score`` (standardised within target and score) and ``truth`` (accuracy).
    """
    rows = list(trust.get("scores") or ())
    if not rows:
        return []
    figures = [_correlations(rows)]
    points = list(trust.get("points") or ())
    return [*figures, _points(points)] if points else figures


def _correlations(rows: list[Mapping[str, Any]]) -> Figure:
    data = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": [1000 * row["seconds"] for row in rows],
            "y": [row["tau"] for row in rows],
            "error_y": {
                "type": "data",
                "symmetric": False,
                "array": [row["high"] - row["tau"] for row in rows],
                "arrayminus": [row["tau"] - row["low"] for row in rows],
                "color": "var(--line-strong)",
            },
            "text": [plot_text(row["title"]) for row in rows],
            "textposition": "top center",
            "cliponaxis": False,
            "hoverinfo": "skip",
            "marker": {"size": 10, "color": "var(--accent)"},
        }
    ]
    table = Table(
        "Weighted Kendall tau with the true results",
        ["Score", "Tau", "Low", "High", "Time of one score"],
        [
            [
                str(row["title"]),
                *(Cell(number(row[key])) for key in ("tau", "low", "high")),
                Cell(f"{number(1000 * row['seconds'])} ms"),
            ]
            for row in rows
        ],
    )
    return Figure(
        name="agreement",
        summary="How well each score orders the sources of the transfer table (1 is perfect, 0 is chance), against the time it takes.",
        table=table,
        data=data,
        layout=layout(
            360, xaxis=axis("milliseconds a score (log scale)", type="log"), yaxis=axis("weighted Kendall tau", zeroline=True),
            margin={"l": 8, "r": 24, "t": 24, "b": 8},
        ),
    )  # fmt: skip


def _points(points: list[Mapping[str, Any]]) -> Figure:
    titles = list(dict.fromkeys(str(row["title"]) for row in points))
    colours = ("var(--accent)", "var(--better)", "var(--worse)", "var(--ink-2)", "var(--ink-3)")
    data = []
    for index, title in enumerate(titles):
        own = [row for row in points if row["title"] == title]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": title,
                "x": [row["score"] for row in own],
                "y": [row["truth"] for row in own],
                "customdata": [plot_text(f"{row['source']} on {row['target']}, {title}") for row in own],
                "hovertemplate": "%{customdata}<br>%{y:.3f}<extra></extra>",
                "marker": {"size": 8, "color": colours[index % len(colours)], "opacity": 0.8},
            }
        )
    table = Table(
        "Scores and true results",
        ["Source and target", "Score", "Standardised", "True accuracy"],
        [
            [
                f"{row['source']}, {row['target']}",
                Cell(str(row["title"]), numeric=False),
                Cell(number(row["score"])),
                Cell(number(row["truth"])),
            ]
            for row in points
        ],
    )
    return Figure(
        name="score-truth",
        summary="Scores (standardised within each target) against the accuracy after fine-tuning, one point a source and target.",
        table=table,
        data=data,
        layout=layout(400, xaxis=axis("score"), yaxis=axis("accuracy after fine-tuning"), showlegend=True),
    )
