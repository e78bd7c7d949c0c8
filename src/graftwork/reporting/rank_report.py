"""``report.html`` of a ranking, and the same as text: recommendation, standings, scores with intervals, scores against cost, and
how far such scores can be trusted where true transfer results are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from graftwork.core.files import write_text
from graftwork.reporting.figures.agreement import agreement_figure
from graftwork.reporting.figures.rank_costs import rank_cost_figure
from graftwork.reporting.formatting import count, duration, interval, number, share
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import render_table, wrap_text

__all__ = ["RankView", "format_rank_summary", "render_rank_report", "write_rank_report"]

_WORDS = PageWords(
    eyebrow="Sources for your tasks, judged before training",
    top="Recommendation",
    window="sources ranked by graftwork",
    empty="No source could be judged.",
    again="On the same machine with the same number of threads this gives the same scores; times differ.",
)


@dataclass(frozen=True)
class RankView(ResultView):
    """Typed access to a ranking.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork rank``.
    """

    format: ClassVar[str] = "graftwork-rank-1"
    verb: ClassVar[str] = "rank"

    @property
    def notes(self) -> tuple[str, ...]:
        """What limits the scores."""
        return tuple(map(str, self.result.get("notes") or ()))

    def score_title(self, name: str) -> str:
        """Return how a score is called in text."""
        return str((self.section("scores").get(name) or {}).get("title") or name)


def standing_table(view: RankView) -> Table:
    """Return one row a source: standing and costs."""
    rows: list[list[str | Cell]] = []
    for row in view.rows("sources"):
        standing = row["standing"]
        note = "untrained trunk, the control" if row.get("control") else ""
        rows.append(
            [
                Cell(row["name"], note=note, strong=row["name"] == view.choice, numeric=False),
                Cell(interval({"value": standing["mean_rank"], "low": standing["low"], "high": standing["high"]})),
                Cell(share(standing["first_share"])),
                Cell(f"{number(row['ms_per_row'])} ms"),
                Cell(count(row["parameters"])),
                Cell(count(row["width"])),
            ]
        )
    return Table(
        "Mean rank over tasks and scores (1 is best) with the range of 95 % of the half-samples, and costs",
        ["Source", "Mean rank", "First in", "One row", "Parameters", "Features"],
        rows,
    )


def score_table(view: RankView, task: str) -> Table:
    """Return the scores of one task, one row a source."""
    names = [name for name in view.section("scores") if any(name in row["scores"].get(task, {}) for row in view.rows("sources"))]
    rows: list[list[str | Cell]] = [
        [
            Cell(row["name"], strong=row["name"] == view.choice, numeric=False),
            *(Cell(interval(row["scores"].get(task, {}).get(name))) for name in names),
        ]
        for row in view.rows("sources")
    ]
    return Table(f"Scores for {task}, higher is better, 95 % intervals", ["Source", *map(view.score_title, names)], rows)


def _set_table(view: RankView) -> Table | None:
    sets = view.rows("sets")
    if not sets:
        return None
    rows: list[list[str | Cell]] = [
        [
            str(row["task"]),
            Cell(str(row["title"]), numeric=False),
            Cell(", ".join(row["members"]), numeric=False),
            Cell(share(row["same"])),
        ]
        for row in sets
    ]
    headers: list[str | Cell] = [
        "Task",
        Cell("Score", numeric=False),
        Cell("Set, in the order of choice", numeric=False),
        "Same in halves",
    ]
    return Table("Sets of sources for an ensemble, of those with classes of their own", headers, rows)


def _passed_table(view: RankView) -> Table | None:
    passed = view.rows("passed_over")
    if not passed:
        return None
    rows: list[list[str | Cell]] = [[str(row["name"]), Cell(str(row["reason"]), numeric=False)] for row in passed]
    return Table("Sources that were passed over", ["Source", Cell("Why", numeric=False)], rows)


def rank_sections(view: RankView) -> list[Section]:
    """Return the sections below the recommendation, without the empty ones."""
    tasks = [task.name for task in view.tasks if any(row["scores"].get(task.name) for row in view.rows("sources"))]
    words = "; ".join(f"{item['title']}: {item['words']}" for item in view.section("scores").values())
    trust = view.section("agreement")
    sections = [
        Section(
            "standings", "Standings", "Standings",
            "Each score of each task ranks the sources; the mean rank counts. Half-samples of the rows say how firm it is.",
            (standing_table(view), _passed_table(view)), notes=view.notes,
        ),
        Section(
            "costs", "Score against cost", "Cost",
            "Up is better, left is cheaper: the time that the features of one row take on one thread.",
            (rank_cost_figure(view.rows("sources"), view.choice),),
        ),
        Section(
            "scores", "Scores", "Scores", f"{words}. Scores of one column compare; scores of two columns do not.",
            tuple(score_table(view, task) for task in tasks),
        ),
        Section(
            "sets", "Sets of sources", "Sets",
            "Chosen greedily by what a set is worth as a whole; the last column says in how many half-samples the same set is chosen.",
            (_set_table(view),),
        ),
        Section(
            "trust", "How far to trust scores", "Trust", str(trust.get("sentence") or ""), tuple(agreement_figure(trust)) if trust else (),
        ),
    ]  # fmt: skip
    return [section for section in sections if not section.is_empty]


def _keys(view: RankView) -> list[Cell]:
    best = next((row for row in view.rows("sources") if row["name"] == view.choice), None)
    if best is None:
        return []
    return [
        Cell(view.choice, note="Recommended"),
        Cell(share(best["standing"]["first_share"]), note="First in half-samples"),
        Cell(f"{number(best['ms_per_row'])} ms", note="Features of one row"),
        Cell(f"{view.section('suite').get('judged_rows') or 0:,}", note="Rows judged on"),
        Cell(duration(view.section("timing").get("seconds")), note="Time of the ranking"),
    ]


def render_rank_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = RankView(result)
    return render_page(view, rank_sections(view), _WORDS, keys=_keys(view))


def write_rank_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_rank_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_rank_report(result))


def format_rank_summary(result: Mapping[str, Any], width: int = 100) -> str:
    """Return the ranking as text for a terminal of ``width`` columns.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank``.
    """
    view = RankView(result)
    blocks = [wrap_text(sentence, width) for sentence in _sentences(view)]
    tables: Sequence[Table | None] = (
        standing_table(view),
        *(score_table(view, task.name) for task in view.tasks),
        _set_table(view),
        _passed_table(view),
    )
    blocks += [render_table(table, width) for table in tables if table is not None and len(table.headers) > 1]
    blocks += [wrap_text(f"Note: {note}", width) for note in view.notes]
    return "\n\n".join(blocks) + "\n"


def _sentences(view: RankView) -> list[str]:
    trust = view.section("agreement").get("sentence")
    return [*map(str, view.section("verdict").get("sentences") or ()), *([str(trust)] if trust else [])]
