"""The report of ``graftwork rank --data``: which source classes to keep, or which source tasks to label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from graftwork.core.files import write_text
from graftwork.reporting.figures.source_data import coverage_figure, relevance_figure
from graftwork.reporting.formatting import duration, number, share
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import render_table, wrap_text

__all__ = ["DataView", "format_data_summary", "render_data_report", "write_data_report"]

_WORDS = PageWords(
    eyebrow="Source data, judged before training",
    top="Recommendation",
    window="source data ranked by graftwork",
    empty="Nothing could be judged.",
    again="On the same machine with the same number of threads this gives the same numbers.",
)


@dataclass(frozen=True)
class DataView(ResultView):
    """Typed access to a ranking of data.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork rank --data``.
    """

    format: ClassVar[str] = "graftwork-rank-data-1"
    verb: ClassVar[str] = "rank --data"

    @property
    def is_about_classes(self) -> bool:
        """Whether classes of a source are judged, and not tasks."""
        return self.result.get("question") == "classes"


def data_table(view: DataView) -> Table:
    """Return one row a class or task."""
    rows: list[list[str | Cell]]
    headers: list[str | Cell]
    if view.is_about_classes:
        rows = [
            [
                Cell(str(row["name"]), strong=bool(row["keep"]), numeric=False),
                Cell("keep" if row["keep"] else "drop", numeric=False),
                Cell(f"{row['votes']:,}"),
                Cell(share(row["covered"])),
                Cell(f"{row['rows']:,}"),
                Cell(share(row["firm"])),
            ]
            for row in view.rows("rows")
        ]
        headers = ["Class", Cell("Verdict", numeric=False), "Votes", "Covered", "Rows", "Kept in halves"]
        return Table("Classes of the source, most votes of the target's rows first", headers, rows)
    rows = [
        [
            Cell(str(row["name"]), strong=row["next"] > 0, numeric=False),
            Cell(f"{number(row['share'])} [{number(row['low'])}, {number(row['high'])}]"),
            Cell(share(row["used"])),
            Cell(f"{row['labelled']:,}"),
            Cell(f"{row['next']:,}"),
        ]
        for row in view.rows("rows")
    ]
    return Table(
        f"Source tasks for {view.result.get('target')}, the most relevant first",
        ["Task", "Relevance", "In halves", "Labels seen", "Label next"],
        rows,
    )


def _figure(view: DataView) -> Figure | None:
    rows = view.rows("rows")
    return coverage_figure(rows, float(view.result.get("covered") or 0)) if view.is_about_classes else relevance_figure(rows)


def render_data_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank --data``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = DataView(result)
    lead = (
        "Each training row of the target votes for the source class that it resembles most; whole classes are kept in the order of "
        "their votes."
        if view.is_about_classes
        else "The target's head is written as the sparsest combination of the heads of all other tasks; labels are shared out by the "
        "size of the coefficients."
    )
    lead += f" Features are those of {view.result.get('features')}."
    section = Section(
        "data", "Source data", "Data", lead, (_figure(view), data_table(view)), notes=tuple(map(str, result.get("notes") or ()))
    )
    keys = [
        Cell(str(view.result.get("source") or ""), note="Source"),
        Cell(f"{view.section('suite').get('judged_rows') or 0:,}", note="Target rows judged on"),
        Cell(duration(view.section("timing").get("seconds")), note="Time of the ranking"),
    ]
    return render_page(view, [section], _WORDS, keys=keys)


def write_data_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_data_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank --data``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_data_report(result))


def format_data_summary(result: Mapping[str, Any], width: int = 100) -> str:
    """Return the ranking as text for a terminal of ``width`` columns.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank --data``.
    """
    view = DataView(result)
    blocks = [wrap_text(str(sentence), width) for sentence in view.section("verdict").get("sentences") or ()]
    blocks.append(render_table(data_table(view), width))
    blocks += [wrap_text(f"Note: {note}", width) for note in result.get("notes") or ()]
    return "\n\n".join(blocks) + "\n"
