"""``report.html`` of ``graftwork rank --transfer-table``: how well scores order sources whose results after fine-tuning are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from graftwork.core.files import write_text
from graftwork.reporting.figures.agreement import agreement_figure
from graftwork.reporting.formatting import number
from graftwork.reporting.page import PageWords, Section, render_page
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView

__all__ = ["AgreementView", "render_agreement_report", "write_agreement_report"]

_WORDS = PageWords(
    eyebrow="Scores of transferability against true transfer results",
    top="Result",
    window="scores judged by graftwork",
    empty="No score could be judged.",
    again="On the same machine this gives the same numbers; a few results are made again at every call.",
)


@dataclass(frozen=True)
class AgreementView(ResultView):
    """Typed access to a judgement of scores.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork rank --transfer-table``.
    """

    format: ClassVar[str] = "graftwork-score-agreement-1"
    verb: ClassVar[str] = "rank --transfer-table"


def true_table(view: AgreementView, key: str, title: str) -> Table:
    """Return the true results, one row a source, best mean first.

    Args:
        view: The result.
        key: ``fine_tuned`` or ``probed``.
        title: Of the table.
    """
    sources, targets = view.result["sources"], view.result["targets"]
    values: Sequence[Sequence[float]] = view.section("true_results")[key]
    order = sorted(range(len(sources)), key=lambda column: -sum(row[column] for row in values))
    rows: list[list[str | Cell]] = [[str(sources[column]), *(Cell(number(row[column])) for row in values)] for column in order]
    return Table(title, ["Source", *(Cell(str(name)) for name in targets)], rows)


def agreement_sections(view: AgreementView) -> list[Section]:
    """Return the sections of the page."""
    plots = agreement_figure(view.result)
    return [
        Section(
            "agreement", "Correlation against cost", "Scores",
            "Weighted Kendall tau between the order of a score and that of the accuracies after fine-tuning, mean over targets; up is "
            "better, left is cheaper. Bars are 95 % intervals over targets and pools.",
            tuple(plots[:1]),
        ),
        Section(
            "truth", "Score against true transfer", "Truth",
            "Every source on every target. A score that orders sources well rises from left to right within each target.",
            tuple(plots[1:]),
        ),
        Section(
            "results", "True results", "Results", "Accuracy on test rows of the targets.",
            (
                true_table(view, "fine_tuned", "After fine-tuning of the whole network"),
                true_table(view, "probed", "Of a linear model on the frozen features"),
            ),
        ),
    ]  # fmt: skip


def render_agreement_report(result: Mapping[str, Any]) -> str:
    """Return the page.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank --transfer-table``.
        MissingDependencyError: If jinja2 is not installed.
    """
    again = [f"{row['source']} on {row['target']}" for row in result.get("audit") or ()]
    sentences = [str(result.get("sentence") or ""), *([f"Made again and found equal: {', '.join(again)}."] if again else [])]
    view = AgreementView(
        {
            **result,
            "suite": {"name": f"transfer table ({result.get('size') or 'full'})"},
            "verdict": {"sentences": [sentence for sentence in sentences if sentence], "warnings": []},
        }
    )
    return render_page(view, [section for section in agreement_sections(view) if not section.is_empty], _WORDS, keys=())


def write_agreement_report(result: Mapping[str, Any], path: str | Path) -> None:
    """Write :func:`render_agreement_report`'s page atomically.

    Raises:
        FileFormatError: If ``result`` is no result of ``graftwork rank --transfer-table``.
        StorageError: If the file cannot be written.
    """
    write_text(path, render_agreement_report(result))
