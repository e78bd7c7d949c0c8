"""The page around every report: sections in one file that needs no network, in the same look for all verbs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from graftwork.core.optional import require
from graftwork.reporting.backbone_lines import backbone_line
from graftwork.reporting.examples import Example
from graftwork.reporting.fact_tables import key_numbers, machine_table
from graftwork.reporting.formatting import moment
from graftwork.reporting.model_lines import measured_line, model_line, others_line
from graftwork.reporting.parts import Cell, Figure, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.untested_lines import untested_line
from graftwork.reporting.words import strength_words

__all__ = ["PageWords", "Panel", "Section", "render_page"]


_PLOTLY = ("plotly", "plotly-cartesian.min.js")
"""plotly.js with what the figures use: scatter, bar, heat map."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Figures on one subject, side by side where the screen is wide."""

    title: str
    lead: str
    """What to see, in a sentence or two."""
    figures: tuple[Figure, ...]


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
    panels: tuple[Panel, ...] = ()
    """Figures side by side, below everything else but the folded tables."""

    @property
    def figures(self) -> list[Figure]:
        """All figures, in reading order."""
        parts = [*self.parts, *(figure for panel in self.panels for figure in panel.figures)]
        return [part for part in parts if isinstance(part, Figure)]

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it was measured."""
        return not (any(self.parts) or any(self.folded) or self.notes or self.examples or self.panels)


@dataclass(frozen=True, slots=True)
class PageWords:
    """What a verb's page calls things."""

    eyebrow: str
    """Stands above the first sentence, before the name of the suite."""
    top: str
    """Name of the first part in the navigation."""
    window: str
    """Title of the window, after the name of the suite."""
    empty: str
    """First sentence of a run without any."""
    again: str = ""
    """What another run of the same command gives; empty for trainings, where that depends on what limits them."""


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


def render_page(view: ResultView, sections: Sequence[Section], words: PageWords, *, keys: Sequence[Cell] | None = None) -> str:
    """Return the page.

    Args:
        view: The result.
        sections: Its parts below the first sentences.
        words: What the verb calls things.
        keys: The few numbers at the head; those of a fit by default.

    Raises:
        MissingDependencyError: If jinja2 is not installed.
    """
    jinja = require("jinja2", extra="report", purpose="The report")
    markupsafe = require("markupsafe", extra="report", purpose="The report")
    package = files("graftwork.reporting")
    folder = package / "templates"
    # Strict: a misspelt name in the template fails in place of printing nothing.
    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja.StrictUndefined)
    # Escaped first: only the marks that are added here become HTML.
    environment.filters["spans"] = lambda text: markupsafe.Markup(_quoted_names(str(markupsafe.escape(text))))
    environment.tests["figure"] = lambda value: isinstance(value, Figure)
    figures = [figure for section in sections for figure in section.figures]
    verdict = view.section("verdict")
    badge, meaning = strength_words(verdict, ("", ""))
    return environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8")).render(
        words=words,
        title=view.section("suite").get("name") or "run",
        badge=badge,
        meaning=meaning,
        strength=str(verdict.get("strength") or "none").replace(" ", "-"),
        sentences=[str(sentence) for sentence in verdict.get("sentences") or ()],
        source_sentence=verdict.get("source_sentence"),
        facts=[
            line
            for line in (
                measured_line(view),
                backbone_line(view),
                untested_line(view, reasons="the reasons are below"),
                model_line(view),
                others_line(view),
            )
            if line
        ],
        warnings=[str(warning) for warning in verdict.get("warnings") or ()],
        key_numbers=key_numbers(view) if keys is None else keys,
        choice_title=view.title(view.choice) if view.choice and keys is None else "",
        sections=sections,
        repeats=bool(view.section("settings").get("steps")),
        command=str(view.result.get("command") or ""),
        machine=machine_table(view),
        version=view.result.get("version") or "",
        created=moment(view.result.get("created")),
        css=(folder / "report.css").read_text(encoding="utf-8"),
        script=(folder / "report.js").read_text(encoding="utf-8"),
        # 1.5 MB of script: only where there is a plot.
        plotly=package.joinpath(*_PLOTLY).read_text(encoding="utf-8") if figures else "",
        figures=_script_json({figure.name: {"data": figure.data, "layout": figure.layout} for figure in figures}),
    )
