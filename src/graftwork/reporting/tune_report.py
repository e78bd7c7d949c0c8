"""``report.html`` of a tuning: scores, the ledger, and what every method costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import write_text
from graftwork.reporting.formatting import count, file_size
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell
from graftwork.reporting.shared_sections import data_section
from graftwork.reporting.tune_view import TuneView, cost_table, ledger_table, score_table

__all__ = ["render_tune_report", "write_tune_report"]

_WORDS = PageWords(
    eyebrow="One backbone, tuned",
    top="Result",
    window="tuning",
    empty="The tuning ended without a sentence; see the tables below.",
)
_COSTS = (
    "Each method trained the same backbone on the same batches for a few steps, one after the other. Held for backward is counted "
    "by saved-tensor hooks; a step takes that, gradients and two moments of the optimiser besides the model."
)


def render_tune_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If it is no result of ``graftwork tune``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = TuneView(result)
    ledger = view.section("ledger")
    keys = [
        Cell(count(ledger.get("parameters_trainable")), note="Numbers that learn"),
        Cell(file_size(ledger.get("held_bytes")), note="Held for the backward pass"),
        Cell(file_size(ledger.get("peak_rss_bytes")), note="Resident memory while training"),
    ]
    sections = [
        Section(
            "scores",
            "Scores",
            "Scores",
            "The metric of each task, on validation rows and on test rows, which no choice saw.",
            (score_table(view),),
        ),
        Section("costs", "What the methods cost", "Costs", _COSTS, (cost_table(view),)),
        Section("ledger", "Ledger", "Ledger", "What this training cost.", (ledger_table(view),)),
        data_section(view),
    ]
    return render_page(view, [section for section in sections if not section.is_empty], _WORDS, keys=keys)


def write_tune_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write the page to a file, whole or not at all.

    Raises:
        StorageError: If it cannot be written.
    """
    write_text(path, render_tune_report(result))
