"""Plots of a distillation: the change of each task, rows that turn right and wrong, and how near the student came to its
teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import is_number, percent_interval, share
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["change_figure", "flip_figure", "kept_figure"]

_LINE = 42
"""Pixels of one line of a plot."""


def change_figure(changes: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Return the change of each task against the student alone, with intervals; None without any.

    Args:
        changes: ``changes`` of the result.
    """
    rows = [(task, item) for task, item in changes.items() if is_number(item.get("value"))]
    if not rows:
        return None
    # Plotly draws from below.
    rows = rows[::-1]
    is_known = [is_number(item.get("low")) and is_number(item.get("high")) for _, item in rows]
    colours = [
        "var(--better)" if known and item["low"] > 0 else "var(--worse)" if known and item["high"] < 0 else "var(--ink-2)"
        for known, (_, item) in zip(is_known, rows, strict=True)
    ]
    data = {
        "type": "scatter",
        "mode": "markers",
        "x": [item["value"] for _, item in rows],
        "y": [plot_text(shorten(task)) for task, _ in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [item["high"] - item["value"] if known else 0 for known, (_, item) in zip(is_known, rows, strict=True)],
            "arrayminus": [item["value"] - item["low"] if known else 0 for known, (_, item) in zip(is_known, rows, strict=True)],
            "color": "var(--ink-3)",
            "thickness": 2,
            "width": 0,
        },
        "marker": {"size": 12, "color": colours},
        "text": [f"{plot_text(task)}<br>{percent_interval(item)}" for task, item in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    return Figure(
        name="distill-changes",
        summary="Change of each task's test score from the student alone to the taught one, with 95 % intervals; right of zero "
        "is better. Coloured points have an interval on one side of zero.",
        table=Table(
            "Change of each task against the student alone",
            ["Task", Cell("change")],
            [[task, Cell(percent_interval(item))] for task, item in rows[::-1]],
        ),
        data=[data],
        layout=layout(
            100 + _LINE * len(rows),
            xaxis=axis("change against the student alone, percent", zeroline=True, zerolinewidth=2),
            yaxis=axis(range=[-0.6, len(rows) - 0.4]),
        ),
    )


def flip_figure(flips: Mapping[str, Mapping[str, Any]]) -> Figure | None:
    """Return bars of the rows that turn right and wrong; None without tasks of classes or labels.

    Args:
        flips: ``flips`` of the result.
    """
    rows = list(flips.items())[::-1]
    if not rows:
        return None
    names = [plot_text(shorten(task)) for task, _ in rows]
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": [sign * 100 * item[key] for _, item in rows],
            "marker": {"color": colour},
            "text": [share(item[key], 1) for _, item in rows],
            "textposition": "auto",
            "customdata": [f"{plot_text(task)}<br>{share(item[key], 1)} of the test rows {words}" for task, item in rows],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
        for key, sign, colour, words in (
            ("positive", 1, "var(--better)", "turn right"),
            ("negative", -1, "var(--worse)", "turn wrong"),
        )
    ]
    most = max(100 * item[key] for _, item in rows for key in ("positive", "negative")) or 1.0
    return Figure(
        name="distill-flips",
        summary="Test rows that change from the student alone to the taught one: those that turn right to the right, those that "
        "turn wrong to the left.",
        table=Table(
            "Rows that turn right and wrong",
            ["Task", "turn right", "turn wrong"],
            [[task, Cell(share(item["positive"], 1)), Cell(share(item["negative"], 1))] for task, item in rows[::-1]],
        ),
        data=bars,
        layout=layout(
            100 + _LINE * len(rows),
            xaxis=axis("share of the test rows: turn wrong | turn right", range=[-1.15 * most, 1.15 * most], ticksuffix=" %"),
            yaxis=axis(),
            barmode="relative",
        ),
    )


def kept_figure(teachers: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return, for each teacher and task, how often both students say what the teacher says; None if no teacher answers a task of
    classes or labels.

    Args:
        teachers: ``teachers`` of the result.
    """
    rows = [
        (str(teacher["name"]), task, item)
        for teacher in teachers
        for task, item in (teacher.get("kept") or {}).items()
        if item["measure"] == "agreement"
    ][::-1]
    if not rows:
        return None
    several = len({name for name, _, _ in rows}) > 1
    labels = [plot_text(shorten(f"{name.rpartition('/')[2]}: {task}" if several else task, 32)) for name, task, _ in rows]
    lines = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [100 * item["alone"]["value"], 100 * item["taught"]["value"]],
            "y": [label, label],
            "line": {"color": "var(--line-strong)", "width": 3},
            "hoverinfo": "skip",
        }
        for label, (_, _, item) in zip(labels, rows, strict=True)
    ]
    points = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [100 * item[key]["value"] for _, _, item in rows],
            "y": labels,
            "marker": {"size": 12, "color": colour, "symbol": symbol},
            "text": [
                f"{plot_text(task)}, {words}<br>same answer as the teacher: {share(item[key]['value'], 1)}"
                for _, task, item in rows
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }
        for key, colour, symbol, words in (
            ("alone", "var(--ink-2)", "circle-open", "student alone"),
            ("taught", "var(--accent)", "circle", "taught student"),
        )
    ]
    return Figure(
        name="distill-kept",
        summary="Share of the test rows for which a student says what its teacher says. Open circles are the student alone, "
        "filled ones the taught student.",
        table=Table(
            "Share of the test rows with the teacher's answer",
            ["Teacher and task", "student alone", "taught"],
            [
                [f"{name}: {task}", Cell(share(item["alone"]["value"], 1)), Cell(share(item["taught"]["value"], 1))]
                for name, task, item in rows[::-1]
            ],
        ),
        data=[*lines, *points],
        layout=layout(
            100 + _LINE * len(rows),
            xaxis=axis("same answer as the teacher, percent of the test rows", ticksuffix=" %"),
            yaxis=axis(range=[-0.6, len(rows) - 0.4]),
        ),
    )
