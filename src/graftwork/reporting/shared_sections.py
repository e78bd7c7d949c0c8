"""Sections that the reports of several verbs have in common."""

from __future__ import annotations

from collections.abc import Iterable

from graftwork.reporting.fact_tables import ledger_table, sources_table, splits_table, tasks_table
from graftwork.reporting.figures.forest import forest_figure
from graftwork.reporting.figures.heatmaps import change_figure
from graftwork.reporting.page import Section
from graftwork.reporting.parts import Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.score_tables import transfer_table

__all__ = ["costs_section", "data_section", "domain_section", "gain_section"]


def gain_section(view: ResultView) -> Section:
    """Return the section with the gain over separate models."""
    return Section(
        "gain", "Against separate models", "Against separate",
        "Delta-m is the mean over all tasks of the relative change against a model trained for that task alone.",
        (forest_figure(view), change_figure(view)),
    )  # fmt: skip


def costs_section(view: ResultView, figures: Iterable[Figure | Table | None]) -> Section:
    """Return the section with the ledgers below ``figures`` of scores against costs."""
    return Section(
        "costs", "What it costs", "Costs",
        "The same probes for every plan. Stored parameters are what all tasks together need; a shared backbone counts once.",
        (*figures, ledger_table(view)),
    )  # fmt: skip


def domain_section(view: ResultView, who: str) -> Section:
    """Return the section about a domain without training rows; ``who`` names what was tried there, in the plural."""
    return Section(
        "domain", "Another domain", "Another domain",
        f"How the {who} do on rows of a domain that they never saw.",
        (transfer_table(view),),
    )  # fmt: skip


def data_section(view: ResultView) -> Section:
    """Return the section about the suite: tasks, splits and sources."""
    suite = view.section("suite")
    return Section(
        "data", "The data", "Data",
        f"Suite {suite.get('name') or 'without name'}, {suite.get('rows') or 0:,} rows"
        + (f", domains {', '.join(map(str, suite['domains']))}." if suite.get("domains") else "."),
        (tasks_table(view), splits_table(view), sources_table(view)), notes=tuple(str(note) for note in suite.get("notes") or ()),
    )  # fmt: skip
