"""``report.html`` of a comparison: leaderboard, costs, and how the tasks act on one another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import write_text
from graftwork.reporting.compare_tables import budget_table, leaderboard_table, seeds_table
from graftwork.reporting.compare_view import CompareView
from graftwork.reporting.figures.pareto import pareto_figure
from graftwork.reporting.formatting import MISSING, duration, percent_interval
from graftwork.reporting.grouping_tables import affinity_section
from graftwork.reporting.model_sections import inputs_section
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell
from graftwork.reporting.shared_sections import costs_section, data_section, domain_section, gain_section

__all__ = ["compare_sections", "render_compare_report", "write_compare_report"]

_WORDS = PageWords(
    eyebrow="Plans side by side, one budget",
    top="Result",
    window="comparison by graftwork",
    empty="The comparison ended before there was a result.",
)


def compare_sections(view: CompareView) -> list[Section]:
    """Return the sections below the first sentences, in reading order, without the empty ones."""
    budget = view.section("budget")
    costs = list(dict.fromkeys(str(row.get("cost_name")) for row in view.rows("pareto")))
    failures = tuple(
        f"`{row['plan']}`: {row['message']}" for row in view.leaderboard if row.get("message") and row.get("status") != "ok"
    )
    sections = [
        Section(
            "leaderboard", "Leaderboard", "Leaderboard",
            "One row a plan, best mean change first, on test rows that nothing was chosen with. " + str(budget.get("sentence") or ""),
            (leaderboard_table(view),), notes=failures, folded=(seeds_table(view), budget_table(view)),
        ),
        gain_section(view),
        costs_section(view, [pareto_figure(view, cost) for cost in costs]),
        affinity_section(view),
        domain_section(view, "plans"),
        inputs_section(view),
        data_section(view),
    ]  # fmt: skip
    return [section for section in sections if not section.is_empty]


def _keys(view: CompareView) -> list[Cell]:
    ranked = [row for row in view.leaderboard if row.get("rank")]
    first = ranked[0] if ranked else {}
    found = [
        ("Highest mean", str(first.get("plan") or MISSING)),
        ("Delta-m against separate", percent_interval(first.get("delta_m")) if first.get("plan") != view.reference else MISSING),
        ("Chosen on validation", view.choice or MISSING),
        ("Plans with a score", f"{len(ranked)} of {len(view.leaderboard)}"),
        ("Time of the whole run", duration(view.section("timing").get("seconds"))),
    ]
    return [Cell(value, note=label) for label, value in found if value != MISSING]


def render_compare_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork compare``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = CompareView(result)
    return render_page(view, compare_sections(view), _WORDS, keys=_keys(view))


def write_compare_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_compare_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork compare``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_compare_report(result))
