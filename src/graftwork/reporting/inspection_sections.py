"""Sections on what the chosen plan learns from: which columns matter, and what more rows would bring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graftwork.reporting.figures.inspection import curve_figure, importance_figure
from graftwork.reporting.formatting import is_number, number, percent_interval
from graftwork.reporting.page import Panel, Section
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.words import metric_words

__all__ = ["importance_rows", "importance_section", "more_rows_section", "more_rows_sentence"]

_MOST_FIGURES = 12
_MOST_NAMED = 5


def importance_rows(view: ResultView) -> Iterator[dict[str, Any]]:
    """Yield the importance of every column for every task: ``task``, ``column``, ``metric``, ``importance``, ``importance_low``,
    ``importance_high``, the most important column of each task first."""
    for task, found in _tasks(view, "importance"):
        for row in found.get("columns") or ():
            ends = {f"importance{end}": row.get(key) for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))}
            yield {"task": task, "column": row.get("column"), "metric": found.get("metric"), **ends}


def importance_section(view: ResultView) -> Section:
    """Return the section about the columns that matter; empty if nothing was measured."""
    importance = view.section("importance")
    tasks = list(_tasks(view, "importance"))
    figures: list[Figure] = []
    numbers: list[list[str | Cell]] = []
    for index, (task, found) in enumerate(tasks):
        metric, rows = str(found.get("metric")), list(found.get("columns") or ())
        figure = importance_figure(f"importance-{index}", task, _title(metric), rows)
        if figure is not None and len(figures) < _MOST_FIGURES:
            figures.append(figure)
        numbers.append(
            [task, Cell(metric_words(metric), numeric=False), Cell(number(found.get("score"))), Cell(_named(rows), numeric=False)]
        )
    rows_words, repeats = f"{int(importance.get('rows') or 0):,} rows", int(importance.get("repeats") or 0)
    total, measured = int(importance.get("num_columns") or 0), int(importance.get("measured") or 0)
    left = (
        f" Of {total:,} columns, the {measured:,} that seemed to matter most were shuffled each by itself."
        if total > measured
        else ""
    )
    return Section(
        "importance", "Which columns matter", "Importance",
        f"How much worse `{importance.get('plan')}` predicts {rows_words} that it did not learn from if one column is shuffled among "
        f"them{f' (mean of {repeats} times)' if repeats > 1 else ''}, in units of each task's metric. Columns that say the same share "
        f"their importance, and it is no cause and effect.{left}",
        (_importance_table(numbers),), panels=_panel("By how much each task loses", figures),
    )  # fmt: skip


def _importance_table(rows: list[list[str | Cell]]) -> Table | None:
    if not rows:
        return None
    headers: list[str | Cell] = [
        "Task",
        Cell("Metric", numeric=False),
        "With nothing shuffled",
        Cell("Most important columns", numeric=False),
    ]
    return Table("Columns whose importance is above zero with its whole interval, at most five of each task", headers, rows)


def _clear(rows: list[Mapping[str, Any]]) -> list[str]:
    """Return the columns whose interval lies above zero."""
    return [str(row.get("column")) for row in rows if is_number(row.get("low")) and float(row["low"]) > 0]


def _named(rows: list[Mapping[str, Any]]) -> str:
    return ", ".join(_clear(rows)[:_MOST_NAMED]) or "none is clear"


def _title(metric: str) -> str:
    """Return how a metric is called, without its direction."""
    return metric_words(metric).partition(",")[0]


def _panel(title: str, figures: list[Figure]) -> tuple[Panel, ...]:
    lead = f"The first {len(figures)} tasks." if len(figures) == _MOST_FIGURES else ""
    return (Panel(title, lead, tuple(figures)),) if figures else ()


def more_rows_sentence(view: ResultView) -> str:
    """Return what more rows would bring; empty where nothing can be said."""
    return str(view.section("learning_curve").get("sentence") or "")


def more_rows_section(view: ResultView) -> Section:
    """Return the section about the learning curve; empty if there is none."""
    curve = view.section("learning_curve")
    tasks = list(_tasks(view, "learning_curve"))
    figures = [
        figure
        for index, (task, found) in enumerate(tasks[:_MOST_FIGURES])
        if (figure := curve_figure(f"curve-{index}", task, _title(str(found.get("metric"))), found)) is not None
    ]
    sentence = more_rows_sentence(view) or "The interval is too wide to say what more rows would bring."
    return Section(
        "more-rows", "What more rows would bring", "More rows",
        f"{sentence} Measured with `{curve.get('plan')}`, trained again on parts of its training rows; more rows of another kind may "
        "bring more, or less.",
        (_twice_table(tasks),), panels=_panel("Scores by training rows", figures),
    )  # fmt: skip


def _twice_table(tasks: list[tuple[str, dict[str, Any]]]) -> Table | None:
    rows: list[list[str | Cell]] = []
    for task, found in tasks:
        twice = found.get("twice") or {}
        # Of an error, which is better when it falls.
        ends = (("value", "value"), ("low", "high"), ("high", "low"))
        fall = {key: -float(twice[other]) for key, other in ends if is_number(twice.get(other))}
        rows.append([task, Cell(metric_words(str(found.get("metric"))), numeric=False), Cell(percent_interval(fall))])
    if not rows:
        return None
    headers: list[str | Cell] = ["Task", Cell("Metric", numeric=False), "Change of the error"]
    return Table("With twice as many training rows, by the power law: change of the distance to a perfect score", headers, rows)


def _tasks(view: ResultView, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for task, found in (view.section(name).get("tasks") or {}).items():
        if isinstance(found, Mapping):
            yield str(task), dict(found)
