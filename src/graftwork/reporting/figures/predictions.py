"""Plots of how the chosen plan predicts: predicted against true, errors, confusion of classes, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.figures.base import axis, layout, plot_text, shorten
from graftwork.reporting.formatting import number, share
from graftwork.reporting.parts import Cell, Figure, Table

__all__ = ["calibration_figure", "confusion_figure", "error_figure", "scatter_figure"]

HEIGHT = 340
_MOST_NUMBERED = 12
"""Classes up to which cells hold their counts: in more there is no room."""


def _line(x: Sequence[Any], y: Sequence[Any], color: str, **settings: Any) -> dict[str, Any]:
    line = {"color": color, "width": 2, **settings.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "line": line, "hoverinfo": "skip", **settings}


def scatter_figure(name: str, title: str, value: Mapping[str, Any]) -> Figure | None:
    """Return predictions against the truth, or None without points.

    Args:
        name: Identifier in the page.
        title: What is predicted.
        value: One of ``values`` of a task's diagnostics.
    """
    points = value.get("points") or {}
    truth, answer = list(points.get("truth") or ()), list(points.get("prediction") or ())
    if not truth or len(truth) != len(answer):
        return None
    ends = [min(*truth, *answer), max(*truth, *answer)]
    rows = int(value.get("rows") or len(truth))
    part = f"{len(truth):,} of {rows:,} test rows" if len(truth) < rows else f"{rows:,} test rows"
    dots = {
        "type": "scatter",
        "mode": "markers",
        "x": truth,
        "y": answer,
        "marker": {"size": 5, "color": "var(--accent)", "opacity": 0.45},
        "hovertemplate": "true: %{x}<br>predicted: %{y}<extra></extra>",
    }
    return Figure(
        name=name,
        summary=f"{title}: predicted against true, {part}. On the line the prediction is right; above it, too high.",
        table=Table(
            caption=f"Errors of {title} (predicted minus true)",
            headers=["Rows", "Mean", "Half are within", "Nine in ten are within", "Largest"],
            rows=[[f"{rows:,}", *(Cell(number(value.get(key))) for key in ("bias", "typical", "nine_in_ten", "largest"))]],
        ),
        data=[_line(ends, ends, "var(--line-strong)"), dots],
        layout=layout(HEIGHT, xaxis=axis("true", zeroline=False), yaxis=axis("predicted", zeroline=False)),
    )


def error_figure(name: str, title: str, value: Mapping[str, Any]) -> Figure | None:
    """Return how errors spread over the range of predictions, or None with fewer than two parts of the rows."""
    bins = [one for one in value.get("bins") or () if len(one.get("error") or ()) == 5]
    if len(bins) < 2:
        return None
    x = [one["prediction"] for one in bins]
    ends = [[one["error"][index] for one in bins] for index in range(5)]
    band = {"fill": "tonexty", "fillcolor": "var(--accent-soft)"}
    thin = {"width": 1}
    data = [
        _line(x, ends[0], "var(--ink-4)", line=thin),
        _line(x, ends[4], "var(--ink-4)", line=thin, **band),
        _line(x, ends[1], "var(--ink-3)", line=thin),
        _line(x, ends[3], "var(--ink-3)", line=thin),
        _line(x, [0] * len(x), "var(--line-strong)", line={"dash": "dot"}),
        {
            **_line(x, ends[2], "var(--accent)"),
            "mode": "lines+markers",
            "hoverinfo": "text",
            "text": [
                f"predicted about {number(one['prediction'])}, {one['rows']:,} rows<br>middle error {number(one['error'][2])}<br>"
                f"nine in ten from {number(one['error'][0])} to {number(one['error'][4])}"
                for one in bins
            ],
        },
    ]
    headers = ["Predicted about", "Rows", "5 %", "25 %", "Middle", "75 %", "95 %"]
    return Figure(
        name=name,
        summary=f"{title}: errors (predicted minus true) by prediction. Nine in ten lie in the shaded band, half between the inner "
        "lines. Above zero, the prediction is too high.",
        table=Table(
            caption=f"Quantiles of the errors of {title}, in parts of the rows by prediction",
            headers=headers,
            rows=[
                [number(one["prediction"]), *map(Cell, (f"{one['rows']:,}", *(number(part) for part in one["error"])))]
                for one in bins
            ],
        ),
        data=data,
        layout=layout(HEIGHT, xaxis=axis("predicted", zeroline=False), yaxis=axis("error", zeroline=False)),
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Return names of which none comes twice: two axis categories of one name would be one."""
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


def confusion_figure(name: str, title: str, found: Mapping[str, Any]) -> Figure | None:
    """Return which classes are taken for which, or None without counts."""
    counts = [list(row) for row in found.get("counts") or ()]
    names = [str(one) for one in found.get("classes") or ()]
    others = int(found.get("others") or 0)
    names += [f"{others:,} others"] if others else []
    size = len(names)
    if not counts or len(counts) != size or any(len(row) != size for row in counts):
        return None
    totals = [sum(row) for row in counts]
    # Names are short and unique: categories of the axes, which hovering shows; the numbers of a cell are a few bytes only.
    labels = [plot_text(one) for one in _unique([shorten(one, 40) for one in names])]
    ticks = {"type": "category", "tickmode": "array", "tickvals": labels}
    quiet = {
        **ticks,
        "ticktext": [plot_text(shorten(one, 18)) for one in names],
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
    }
    cells = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": [[round(count / total, 3) if total else None for count in row] for row, total in zip(counts, totals)],
        "customdata": counts,
        "zmin": 0,
        "zmax": 1,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
        "colorscale": [[0.0, "var(--cell)"], [1.0, "var(--better)"]],
        "hovertemplate": "true: %{y}<br>predicted: %{x}<br>%{customdata:,} rows, %{z:.1%} of the true class<extra></extra>",
    }
    if size <= _MOST_NUMBERED:
        cells |= {"text": [[f"{count:,}" if count else "" for count in row] for row in counts], "texttemplate": "%{text}"}
    return Figure(
        name=name,
        summary=f"{title}: true classes in rows, predicted ones in columns; the stronger the colour, the larger the share of the "
        "row. What lies off the diagonal is a mistake.",
        table=Table(
            caption=f"Test rows of {title} by true class (rows) and predicted class (columns)",
            headers=["True class", *names],
            rows=[[names[i], *(Cell(f"{count:,}") for count in counts[i])] for i in range(size)],
        ),
        data=[cells],
        layout=layout(
            max(HEIGHT, 120 + 24 * size),
            xaxis=axis("predicted", side="top", autotickangles=[0, -55, -90], ticklabeloverflow="allow", **quiet),
            yaxis=axis("true", autorange="reversed", **quiet),
            margin={"l": 8, "r": 12 + 3 * min(18, len(names[-1])), "t": 8, "b": 8, "pad": 4},
        ),
        min_width=150 + 14 * size,
    )


def calibration_figure(name: str, title: str, said: str, calibration: Mapping[str, Any]) -> Figure | None:
    """Return what happened against what was said, or None without bins.

    Args:
        name: Identifier in the page.
        title: What is predicted.
        said: What the probability is of.
        calibration: ``calibration`` of a task's diagnostics.
    """
    bins = list(calibration.get("bins") or ())
    if not bins:
        return None
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [one["probability"] for one in bins],
        "y": [one["share"] for one in bins],
        "line": {"color": "var(--accent)", "width": 1},
        "marker": {"size": 8, "color": "var(--accent)"},
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, one["high"] - one["share"]) for one in bins],
            "arrayminus": [max(0.0, one["share"] - one["low"]) for one in bins],
            "color": "var(--ink-3)",
            "thickness": 1.5,
            "width": 0,
        },
        "text": [
            f"said: {share(one['probability'])}<br>happened: {share(one['share'])} of {one['rows']:,} rows<br>"
            f"95 % interval {share(one['low'])} to {share(one['high'])}"
            for one in bins
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    percent = {"range": [-0.02, 1.02], "tickformat": ".0%", "zeroline": False}
    return Figure(
        name=name,
        summary=f"{title}: how often what was given a probability ({said}) was so. On the line, probabilities are right; below it, "
        "they are too high. Bars: 95 % intervals.",
        table=Table(
            caption=f"Calibration of {title}",
            headers=["Probability, mean", "Rows", "It was so", "95 % interval"],
            rows=[
                [
                    share(one["probability"]),
                    Cell(f"{one['rows']:,}"),
                    Cell(share(one["share"])),
                    Cell(f"{share(one['low'])} to {share(one['high'])}"),
                ]
                for one in bins
            ],
        ),
        data=[_line([0, 1], [0, 1], "var(--line-strong)", line={"dash": "dot"}), dots],
        layout=layout(HEIGHT, xaxis=axis("probability said", **percent), yaxis=axis("share that was so", **percent)),
    )
