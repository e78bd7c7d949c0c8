"""``report.html``: a run's verdict and everything behind it in one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import write_text
from graftwork.reporting.examples import sample_examples
from graftwork.reporting.fact_tables import estimate_table
from graftwork.reporting.figures.pareto import pareto_figure
from graftwork.reporting.figures.race import race_figure
from graftwork.reporting.grouping_tables import affinity_section
from graftwork.reporting.inspection_sections import importance_section, more_rows_section
from graftwork.reporting.model_lines import measured_line, weights_table
from graftwork.reporting.model_sections import answers_section, inputs_section
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.probability_lines import probabilities_line, probabilities_table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.score_tables import controls_table, other_metrics_table, scores_table, source_table
from graftwork.reporting.shared_sections import costs_section, data_section, domain_section, gain_section
from graftwork.reporting.untested_lines import untested_lead, untested_table

__all__ = ["Section", "render_report", "report_sections", "write_report"]


_WORDS = PageWords(
    eyebrow="Which way of learning these tasks is best",
    top="Verdict",
    window="verdict of graftwork fit",
    empty="The race ended before a verdict could be reached.",
)


_COMPARED = " The sign and the words compare with separate models, one per task, in percent; plus is better whatever the metric's direction."


def report_sections(view: ResultView) -> list[Section]:
    """Return the sections below the verdict, in reading order, without the empty ones."""
    suite = view.section("suite")
    sections = [
        Section(
            "tasks", "Each task on test rows", "Tasks",
            # The head of the page says on what they were measured, and what the model is made of.
            ("" if measured_line(view) else "Scores on rows that were never used for selection. ")
            + "In brackets: 95 % interval."
            + (_COMPARED if view.rows("comparisons") else ""),
            (scores_table(view),), folded=(other_metrics_table(view),),
        ),
        Section(
            "model", "The model that is handed over", "Model",
            probabilities_line(view) or "The plans that it is made of, task by task.",
            (weights_table(view), probabilities_table(view)),
        ),
        answers_section(view),
        importance_section(view),
        inputs_section(view),
        more_rows_section(view),
        gain_section(view),
        affinity_section(view),
        Section(
            "controls", "Transfer or regularisation", "Transfer check",
            "The control trains the same plan with the companion targets shuffled, so that they hold no knowledge. A gain "
            "that the control shows as well is regularisation; only what beats the control is transfer between tasks. A loss "
            "that the control shows as well is the cost of sharing, not harm from the companions.",
            (controls_table(view),),
        ),
        Section(
            "source", "What pretraining did", "Pretraining",
            "The best plan on the pretrained backbone against the best one trained from nothing, task by task.",
            (source_table(view),),
        ),
        domain_section(view, "finalists"),
        costs_section(view, [pareto_figure(view)]),
        Section(
            "race", "How the plans raced", "Race",
            "All plans start with few steps; the better part goes on with more. Each round of this is a rung.",
            (race_figure(view),), folded=(estimate_table(view),),
        ),
        Section("untested", "What was not tested", "Not tested", untested_lead(view), (untested_table(view),)),
        Section(
            "examples", "Sample predictions", "Samples",
            "Test rows, predicted by the chosen plan. Percentages are the model's own probabilities.",
            examples=tuple(sample_examples(view)),
            credits=tuple(f"{name}: {line}" for name, line in (suite.get("credits") or {}).items()),
        ),
        data_section(view),
    ]  # fmt: skip
    return [section for section in sections if not section.is_empty]


def render_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        result: Content of a run's ``result.json``; one of a race that was cut short gives a shorter page.

    Raises:
        FileFormatError: If it is no result of ``graftwork fit``.
        MissingDependencyError: If jinja2 is not installed.
    """
    view = ResultView(result)
    return render_page(view, report_sections(view), _WORDS)


def write_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork fit``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_report(result))
