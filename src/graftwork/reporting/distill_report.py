"""``report.html`` of a distillation: scores, what turned right and wrong, what was kept of each teacher, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import write_text
from graftwork.reporting.distill_view import (
    ALONE,
    DISTILLED,
    DistillView,
    agreement_table,
    flip_table,
    kept_table,
    model_table,
    score_table,
    teacher_table,
)
from graftwork.reporting.figures.distill import change_figure, flip_figure, kept_figure
from graftwork.reporting.formatting import MISSING, count, number, percent_interval
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell
from graftwork.reporting.shared_sections import data_section

__all__ = ["render_distill_report", "write_distill_report"]

_WORDS = PageWords(
    eyebrow="A student and its teachers",
    top="Result",
    window="distillation",
    empty="The distillation ended without a sentence; see the tables below.",
)


def distill_sections(view: DistillView) -> list[Section]:
    """Return the sections below the first sentences, without the empty ones."""
    budget = view.section("budget")
    unlabelled = int(budget.get("unlabelled") or 0)
    besides = f" The taught student also learned from {unlabelled:,} rows without labels." if unlabelled else ""
    told = (
        "A student that says what its teacher says has taken over its mistakes, too: gained and followed tell them apart."
        if view.has_labels
        else f"No row has a label: {budget.get('steps') or 0:,} steps on what the teachers answer, {len(budget.get('seeds') or ())} seeds. "
        "What the student says on test rows is compared with what they say; how often either is right is not known."
    )
    sections = [
        Section(
            "scores", "Alone and taught", "Scores",
            f"The same student with and without teachers: {budget.get('steps') or 0:,} steps, the same labelled rows, "
            f"{len(budget.get('seeds') or ())} seeds. No choice saw the test rows.{besides}",
            (change_figure(view.section("changes")), score_table(view)),
        ),
        Section(
            "flips", "What turns right and wrong", "Flips",
            "A better score may hide rows that were right before. Shares are means over the seeds.",
            (flip_figure(view.section("flips")), flip_table(view)),
        ),
        Section(
            "teachers", "What was kept of each teacher", "Teachers",
            told,
            (agreement_table(view), teacher_table(view), kept_figure(view.teachers), kept_table(view)),
        ),
        Section("costs", "Size and speed", "Costs", "The same probes for all models.", (model_table(view),)),
        data_section(view),
    ]  # fmt: skip
    return [section for section in sections if not section.is_empty]


def _keys(view: DistillView) -> list[Cell]:
    delta = view.plans.get(DISTILLED, {}).get("delta_m")
    ledger = view.plans.get(view.choice or ALONE, {}).get("ledger") or {}
    sizes = [float((teacher.get("costs") or {}).get("parameters_total") or 0) for teacher in view.teachers]
    own, largest = float(ledger.get("parameters_total") or 0), max(sizes, default=0.0)
    first = Cell(percent_interval(delta), note="Change against the student alone") if view.has_labels else _nearest(view)
    found = [
        first,
        Cell(count(own) if own else MISSING, note="Parameters of the student"),
        Cell(f"{largest / own:,.1f} times as large" if own and largest else MISSING, note="Largest teacher, against the student"),
        Cell(f"{number(ledger.get('latency_ms_batch1'))} ms", note="Latency, 1 row"),
    ]
    return [cell for cell in found if MISSING not in cell.text]


def _nearest(view: DistillView) -> Cell:
    """Return the largest share of test rows for which the student says what a teacher says."""
    shares = [
        float(item["taught"]["value"])
        for teacher in view.teachers
        for item in (teacher.get("agreement") or {}).values()
        if item["measure"] == "agreement" and item["taught"].get("value") is not None
    ]
    return Cell(f"{100 * max(shares):.1f} %" if shares else MISSING, note="Test rows answered as a teacher does, at most")


def render_distill_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If it is no result of ``graftwork distill``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = DistillView(result)
    return render_page(view, distill_sections(view), _WORDS, keys=_keys(view))


def write_distill_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write the page to a file, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    write_text(path, render_distill_report(result))
