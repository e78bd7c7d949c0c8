"""``report.html``: a run's verdict and everything behind it in one file that needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from graftwork.core.files import write_text
from graftwork.core.optional import require
from graftwork.reporting.examples import Example, sample_examples
from graftwork.reporting.fact_tables import (
    estimate_table,
    key_numbers,
    ledger_table,
    machine_table,
    sources_table,
    splits_table,
    tasks_table,
)
from graftwork.reporting.figures.forest import forest_figure
from graftwork.reporting.figures.heatmaps import affinity_figure, change_figure
from graftwork.reporting.figures.pareto import pareto_figure
from graftwork.reporting.figures.race import race_figure
from graftwork.reporting.parts import Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.score_tables import controls_table, other_metrics_table, scores_table, source_table, transfer_table
from graftwork.reporting.words import STRENGTHS

__all__ = ["Section", "render_report", "report_sections", "write_report"]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page; parts without content are left out."""

    key: str
    title: str
    nav: str
    lead: str
    """How to read it, in a sentence or two."""
    parts: tuple[Figure | Table | None, ...] = ()
    notes: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    credits: tuple[str, ...] = ()
    """Credit lines of the pictures or texts shown."""
    folded: tuple[Table | None, ...] = field(default=())
    """Tables behind a click."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it was measured."""
        return not (any(self.parts) or any(self.folded) or self.notes or self.examples)


def report_sections(view: ResultView) -> list[Section]:
    """Return the sections below the verdict, in reading order, without the empty ones."""
    suite = view.section("suite")
    method = view.section("affinity").get("method")
    sections = [
        Section(
            "tasks", "Each task on test rows", "Tasks",
            "Scores on rows that were never used for selection. In brackets: 95 % interval. The sign and the words compare with separate "
            "models, one per task, in percent; plus is better whatever the metric's direction.",
            (scores_table(view),), folded=(other_metrics_table(view),),
        ),
        Section(
            "gain", "Against separate models", "Against separate",
            "Delta-m is the mean over all tasks of the relative change against a model trained for that task alone.",
            (forest_figure(view), change_figure(view)),
        ),
        Section(
            "affinity", "Which tasks help each other", "Affinity",
            "Does it help the column's task to have the row's task trained along? Only cells with a filled ground are clear of zero."
            + (f" Measured by: {method}." if method else ""),
            (affinity_figure(view),),
        ),
        Section(
            "controls", "Transfer or regularisation", "Transfer check",
            "The control trains the same plan with the companion targets shuffled, so that they hold no knowledge. A gain that the "
            "control shows as well is regularisation; only what beats the control is transfer between tasks.",
            (controls_table(view),),
        ),
        Section(
            "source", "What pretraining did", "Pretraining",
            "The best plan on the pretrained backbone against the best one trained from nothing, task by task.",
            (source_table(view),),
        ),
        Section(
            "domain", "Another domain", "Another domain",
            "How the finalists do on rows of a domain that they never saw.",
            (transfer_table(view),),
        ),
        Section(
            "costs", "What it costs", "Costs",
            "The same probes for every plan. Stored parameters are what all tasks together need; a shared backbone counts once.",
            (pareto_figure(view), ledger_table(view)),
        ),
        Section(
            "race", "How the plans raced", "Race",
            "All plans start with few steps; the better part goes on with more.",
            (race_figure(view),), folded=(estimate_table(view),),
        ),
        Section(
            "examples", "Sample predictions", "Samples",
            "Test rows, predicted by the chosen plan. Percentages are the model's own probabilities.",
            examples=tuple(sample_examples(view)),
            credits=tuple(f"{name}: {line}" for name, line in (suite.get("credits") or {}).items()),
        ),
        Section(
            "data", "The data", "Data",
            f"Suite {suite.get('name') or 'without name'}, {suite.get('rows') or 0:,} rows"
            + (f", domains {', '.join(map(str, suite['domains']))}." if suite.get("domains") else "."),
            (tasks_table(view), splits_table(view), sources_table(view)), notes=tuple(str(note) for note in suite.get("notes") or ()),
        ),
    ]  # fmt: skip
    return [section for section in sections if not section.is_empty]


def _quoted_names(text: str) -> str:
    """Mark names that escaped sentences quote with backticks, and keep numbers together with their percent sign."""
    return re.sub(r"(\d) %", "\\1\u00a0%", re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text))


def _script_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return (
        text.replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )


def render_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        result: Content of a run's ``result.json``; one of a race that was cut short gives a shorter page.

    Raises:
        FileFormatError: If it is no result of ``graftwork fit``.
        MissingDependencyError: If jinja2 or plotly is not installed.
    """
    view = ResultView(result)
    jinja = require("jinja2", extra="report", purpose="The report")
    markupsafe = require("markupsafe", extra="report", purpose="The report")
    plotly = require("plotly.offline", extra="report", purpose="The report")
    folder = files("graftwork.reporting") / "templates"
    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja.StrictUndefined)
    environment.filters["spans"] = lambda text: markupsafe.Markup(_quoted_names(str(markupsafe.escape(text))))
    environment.tests["figure"] = lambda value: isinstance(value, Figure)
    sections = report_sections(view)
    figures = [part for section in sections for part in section.parts if isinstance(part, Figure)]
    verdict = view.section("verdict")
    badge, meaning = STRENGTHS.get(str(verdict.get("strength")), ("", ""))
    return environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8")).render(
        title=view.section("suite").get("name") or "run",
        badge=badge,
        meaning=meaning,
        strength=str(verdict.get("strength") or "none").replace(" ", "-"),
        sentences=[str(sentence) for sentence in verdict.get("sentences") or ()],
        source_sentence=verdict.get("source_sentence"),
        warnings=[str(warning) for warning in verdict.get("warnings") or ()],
        key_numbers=key_numbers(view),
        choice_title=view.title(view.choice) if view.choice else "",
        sections=sections,
        command=str(view.result.get("command") or ""),
        machine=machine_table(view),
        version=view.result.get("version") or "",
        created=view.result.get("created") or "",
        css=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        plotly=plotly.get_plotlyjs() if figures else "",
        figures=_script_json({figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures}),
    )


def write_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork fit``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_report(result))
