"""Reads the ``result.json`` of a tuning, and says it as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from graftwork.core.plain_text import plain_text
from graftwork.reporting.formatting import MISSING, count, duration, file_size, number, share
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.tables import render_table, wrap_text
from graftwork.reporting.words import metric_words

__all__ = ["TuneView", "cost_table", "format_tuning", "impossible_lines", "ledger_table", "score_table"]


@dataclass(frozen=True)
class TuneView(ResultView):
    """Typed access to a tuning.

    Raises:
        FileFormatError: On building, if the object is not a result of ``graftwork tune``.
    """

    format: ClassVar[str] = "graftwork-tune-1"
    verb: ClassVar[str] = "tune"

    @property
    def costs(self) -> list[dict[str, Any]]:
        """One row a method."""
        return self.rows("costs")


def cost_table(view: TuneView, *, reasons: bool = True) -> Table:
    """Return what every method costs on this backbone and these rows.

    Args:
        view: The result.
        reasons: Whether the table says why methods are not possible; see :func:`impossible_lines`.
    """
    rows: list[list[str | Cell]] = []
    chosen = str(view.result.get("method") or "")
    for row in view.costs:
        name, words = str(row["method"]), {"ok": "", "over": "over a limit"}.get(str(row["status"]), "not possible")
        if "held_bytes" not in row:
            rows.append(
                [
                    name,
                    *(Cell(MISSING) for _ in range(6)),
                    Cell(words, note=str(row.get("message") or "") if reasons else "", numeric=False),
                ]
            )
            continue
        taken = int(row["held_bytes"]) + int(row["optimizer_bytes"])
        trial = row.get("trial_score")
        note = "chosen" if name == chosen else words
        about = str(row.get("message") or "") or (f"trial: {float(trial):+.1f} %" if isinstance(trial, int | float) else "")
        rows.append(
            [
                name,
                Cell(count(row["trainable"]), note=share(row["trainable"] / max(int(row["total"]), 1))),
                Cell(count(row["stored"])),
                Cell(file_size(row["held_bytes"])),
                Cell(file_size(taken)),
                Cell(file_size(row["rss_bytes"])),
                Cell(duration(row["seconds_per_step"])),
                Cell(note, note=about, strong=name == chosen, numeric=False),
            ]
        )
    return Table(
        caption="What every method costs on a few steps: numbers that learn (below: their share of the model) and that are stored, "
        "memory held for the backward pass, all memory of a step besides the model, resident memory of the process, time of a step",
        headers=["Method", "Learn", "Stored", "Held", "A step", "Resident", "Time", Cell("Note", numeric=False)],
        rows=rows,
        highlight=next((index for index, row in enumerate(view.costs) if row["method"] == chosen), None),
    )


def impossible_lines(view: TuneView) -> list[str]:
    """Return why methods cannot tune this backbone, a line each."""
    return [f"{row['method']}: {row['message']}" for row in view.costs if "held_bytes" not in row and row.get("message")]


def ledger_table(view: TuneView) -> Table:
    """Return what the training itself cost."""
    ledger = view.section("ledger")
    facts = [
        ("numbers that learn", count(ledger.get("parameters_trainable"))),
        ("numbers stored beside the backbone", count(ledger.get("parameters_in_delta"))),
        ("numbers of the whole model", count(ledger.get("parameters_total"))),
        ("held for the backward pass", file_size(ledger.get("held_bytes"))),
        ("gradients and moments of the optimiser", file_size(ledger.get("optimizer_bytes"))),
        ("highest resident memory while training", file_size(ledger.get("peak_rss_bytes"))),
        ("time of a step", duration(ledger.get("seconds_per_step"))),
        ("steps", count(ledger.get("steps"))),
        ("time of the training", duration(ledger.get("wall_seconds"))),
    ]
    return Table(
        caption="Ledger of the training", headers=["What", Cell("Value")], rows=[[name, Cell(value)] for name, value in facts]
    )


def score_table(view: TuneView) -> Table | None:
    """Return the primary metric of each task; None without tasks."""
    scores = view.section("scores")
    rows: list[list[str | Cell]] = [
        [
            name,
            Cell(metric_words(str(entry.get("metric"))), numeric=False),
            Cell(number(entry.get("val"))),
            Cell(number(entry.get("test"))),
        ]
        for name, entry in scores.items()
    ]
    headers: list[str | Cell] = ["Task", Cell("Metric", numeric=False), "Validation", "Test"]
    return Table(caption="Scores of the tuned model", headers=headers, rows=rows) if rows else None


def format_tuning(result: Mapping[str, Any], width: int = 100) -> str:
    """Return a summary of a tuning without colours or control characters.

    Args:
        result: Content of ``result.json``.
        width: Columns of the terminal, at least 40.

    Raises:
        FileFormatError: If it is no result of ``graftwork tune``.
    """
    view, width = TuneView(result), max(40, width)
    verdict = view.section("verdict")
    blocks = [wrap_text(str(sentence), width) for sentence in verdict.get("sentences") or ()]
    blocks += [wrap_text(f"Note: {plain_text(warning)}", width) for warning in verdict.get("warnings") or ()]
    # Reasons are sentences: in the table they would leave no room for its columns.
    blocks.append(render_table(cost_table(view, reasons=False), width))
    blocks.append("\n".join(wrap_text(plain_text(line), width) for line in impossible_lines(view)))
    scores = score_table(view)
    blocks += [render_table(scores, width)] if scores is not None else []
    folder = view.section("delta").get("folder")
    if folder:
        blocks.append(f"The delta and the heads: {folder}/ in the run folder (graftwork.load_tuned); the whole model: model/.")
    return "\n\n".join(block for block in blocks if block) + "\n"
