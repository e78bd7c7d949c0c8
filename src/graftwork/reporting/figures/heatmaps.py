"""Heat maps around zero: relative change of each task under each plan, and who helps whom. Unclear cells are muted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graftwork.reporting.figures.base import DIVERGING, axis, layout, plot_text, shorten
from graftwork.reporting.formatting import MISSING, is_number, percent_interval, signed_interval, spans_zero
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import Mark, comparison_mark

__all__ = ["Triple", "affinity_figure", "change_figure", "heatmap"]

Triple = tuple[float | None, float | None, float | None]

_BETTER, _WORSE, _UNCLEAR = Mark("▲", "better", "good"), Mark("▼", "worse", "bad"), Mark("?", "unclear", "even")
_HELPS, _HURTS = Mark("▲", "helps", "good"), Mark("▼", "hurts", "bad")


def heatmap(
    name: str,
    cells: Sequence[Sequence[Triple]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    summary: str,
    caption: str,
    corner: str,
    words: tuple[Mark, Mark] | None,
    hover: str,
    titles: tuple[str, str],
    show: Callable[[Mapping[str, float | None]], str] = percent_interval,
    notes: Sequence[Sequence[str]] | None = None,
    least_limit: float = 0.0,
    marks: Sequence[Sequence[Mark | None]] | None = None,
) -> Figure:
    """Return a heat map around zero.

    Args:
        name: Identifier of the figure, unique in the page.
        cells: ``(value, low, high)`` of each cell; None where nothing is known. Cells whose interval holds zero are muted, or
            those that ``marks`` says nothing clear of.
        rows: Names of the rows.
        columns: Names of the columns.
        summary: What the map shows, in one or two sentences.
        caption: Caption of the table with the same numbers.
        corner: Heading of its first column.
        words: Marks of cells above and below zero; None where nothing was judged: no cell then is muted, or has a word.
        hover: Text with ``{row}``, ``{column}`` and ``{value}``.
        titles: Titles of the vertical and the horizontal axis.
        show: Turns ``{"value", "low", "high"}`` into text.
        notes: A further line for each cell, in the table and on hovering.
        least_limit: Value that gets the full colour if none is larger, so that small values look small.
        marks: The judgement of each cell, if it was judged by more than its interval; those of tone ``even`` are muted.
    """
    if words is None:
        marks = [[None] * len(row) for row in cells]
    elif marks is None:
        marks = [
            [
                _UNCLEAR if not is_number(value) or spans_zero(low, high) else words[0] if float(value or 0.0) > 0 else words[1]
                for value, low, high in row
            ]
            for row in cells
        ]
    clear = [
        [
            is_number(value) and (words is None or (mark is not None and mark.tone != "even"))
            for (value, _, _), mark in zip(row, judged)
        ]
        for row, judged in zip(cells, marks)
    ]
    known = [abs(value) for row in cells for value, _, _ in row if value is not None]
    # All zeros: any limit will do, except zero.
    limit = max([*known, least_limit]) or 1.0
    # Two layers: a pale ground below all known cells, and colour where the interval is clear of zero.
    z = [[value if flag else None for (value, _, _), flag in zip(row, flags)] for row, flags in zip(cells, clear)]
    ground = [[0.0 if value is not None else None for value, _, _ in row] for row in cells]
    texts = [[show({"value": value, "low": low, "high": high}) for value, low, high in row] for row in cells]
    details = [
        [
            hover.format(row=plot_text(rows[i]), column=plot_text(columns[j]), value=texts[i][j])
            + ("" if clear[i][j] or texts[i][j] == MISSING else f"<br>{(marks[i][j] or _UNCLEAR).words}")
            + (f"<br>{plot_text(notes[i][j])}" if notes is not None and notes[i][j] else "")
            for j in range(len(columns))
        ]
        for i in range(len(rows))
    ]
    # Positions are indices and names are tick texts: two names that shorten to the same label must not share a cell.
    shared = {"type": "heatmap", "xgap": 3, "ygap": 3, "showscale": False, "zmin": -limit, "zmax": limit, "colorscale": DIVERGING}
    data = [
        {**shared, "z": ground, "text": details, "hovertemplate": "%{text}<extra></extra>", "name": "unclear"},
        {**shared, "z": z, "text": details, "hovertemplate": "%{text}<extra></extra>", "hoverongaps": False, "name": "clear"},
    ]
    annotations = [
        {
            "x": j,
            "y": i,
            "text": _center(texts[i][j]) if clear[i][j] else f"({_center(texts[i][j])})",
            "showarrow": False,
            "font": {
                "size": 12,
                # Dark cells need light digits.
                "color": "var(--ink-3)" if not clear[i][j] else "var(--on-fill)" if abs(value) > 0.55 * limit else "var(--ink)",
            },
        }
        for i, row in enumerate(cells)
        for j, (value, _, _) in enumerate(row)
        if value is not None
    ]

    def tick(names: Sequence[str], length: int, title: str, **settings: object) -> dict[str, object]:
        return axis(
            title,
            tickmode="array",
            tickvals=list(range(len(names))),
            ticktext=[plot_text(shorten(item, length)) for item in names],
            showgrid=False,
            zeroline=False,
            ticks="",
            **settings,
        )

    def cell(i: int, j: int) -> Cell:
        if cells[i][j][0] is None:
            return Cell(MISSING)
        note = notes[i][j] if notes is not None else ""
        return Cell(texts[i][j], note=note, mark=None if words is None else marks[i][j] or _UNCLEAR)

    table = Table(
        caption=caption,
        headers=[corner, *columns],
        rows=[[rows[i], *(cell(i, j) for j in range(len(columns)))] for i in range(len(rows))],
    )
    return Figure(
        name=name,
        summary=summary,
        table=table,
        data=data,
        layout=layout(
            110 + 44 * len(rows),
            xaxis=tick(columns, 18, titles[1], side="top", autotickangles=[0, -55, -90], ticklabeloverflow="allow"),
            yaxis=tick(rows, 20, titles[0], autorange="reversed"),
            annotations=annotations,
            # Slanted names reach over the right edge of the last cell.
            margin={"l": 8, "r": 12 + 3 * min(18, len(columns[-1])), "t": 8, "b": 8, "pad": 4},
        ),
        min_width=max(120, 60 + 7 * min(20, max(map(len, rows)))) + 58 * len(columns),
    )


def _center(text: str) -> str:
    """Return the centre of a formatted interval, without unit."""
    return text.partition(" [")[0].removesuffix("\u00a0%")


def change_figure(view: ResultView) -> Figure | None:
    """Return the relative change of each task under each finalist, or None without such numbers."""
    names = [name for name in view.finalists if view.plans[name].get("relative") and name != view.reference]
    tasks = [task.name for task in view.tasks]
    if not names or not tasks:
        return None

    def triple(plan: str, task: str) -> Triple:
        value = (view.plans[plan].get("relative") or {}).get(task) or {}
        return value.get("value"), value.get("low"), value.get("high")

    cells = [[triple(plan, task) for task in tasks] for plan in names]
    if all(value is None for row in cells for value, _, _ in row):
        return None
    return heatmap(
        "change",
        cells,
        names,
        tasks,
        summary=(
            "Change of each task's metric against a separate model, in percent; plus is better whatever the metric's direction. "
            "Cells in parentheses are unclear, or show no difference."
        ),
        caption="Relative change of each task against separate models, in percent, plus is better",
        corner="Plan",
        words=(_BETTER, _WORSE),
        hover="{column} under {row}<br>{value}",
        titles=("", ""),
        # The same words as in the table of scores.
        marks=[[comparison_mark(view.comparison(plan, task).get("label")) for task in tasks] for plan in names],
    )


def affinity_figure(view: ResultView) -> Figure | None:
    """Return who helps whom, or None if the race measured no affinity."""
    affinity = view.section("affinity")
    tasks, values = list(affinity.get("tasks") or ()), affinity.get("value") or []
    if len(tasks) < 2 or len(values) != len(tasks):
        return None

    def at(part: str, i: int, j: int) -> float | None:
        grid = affinity.get(part) or []
        value = grid[i][j] if i < len(grid) and j < len(grid[i]) else None
        return float(value) if value is not None and is_number(value) and i != j else None

    def word(i: int, j: int) -> str:
        # Results of older versions were not judged against shuffled companions.
        grid = affinity.get("words") or []
        return str(grid[i][j]) if i < len(grid) and j < len(grid[i]) else ""

    size = range(len(tasks))
    return heatmap(
        "affinity",
        [[(at("value", i, j), at("low", i, j), at("high", i, j)) for j in size] for i in size],
        tasks,
        tasks,
        summary=(
            "Read along a row: a step of training on this task helps (plus) or hurts (minus) the column's task. "
            + ("1 would be as much as a step on the column's own task. " if affinity.get("own") else "")
            + "Nothing is claimed of cells in parentheses: they do not stand out among all pairs, or shuffled companions show the "
            "same."
        ),
        caption="Effect of training the row's task on the column's task",
        corner="Trained along",
        words=(_HELPS, _HURTS),
        marks=[[{"helps": _HELPS, "hurts": _HURTS}.get(word(i, j), _UNCLEAR) for j in size] for i in size],
        hover="training {row} along<br>effect on {column}: {value}",
        titles=("trained along", "effect on"),
        show=signed_interval,
    )
