"""What the terminal shows of a result: verdict, scores, what was left out, in plain text of any width."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from graftwork.reporting.backbone_lines import backbone_line
from graftwork.reporting.fact_tables import key_numbers
from graftwork.reporting.formatting import count, duration, number, percent_interval
from graftwork.reporting.inspection_sections import more_rows_sentence
from graftwork.reporting.model_lines import measured_line, model_line, others_line, weights_table
from graftwork.reporting.parts import Cell, Table
from graftwork.reporting.result_view import ResultView
from graftwork.reporting.score_tables import controls_table, folded_scores, scores_table
from graftwork.reporting.untested_lines import untested_line
from graftwork.reporting.words import strength_words

__all__ = ["format_summary", "plain_text", "render_table", "wrap_text"]

_NARROW = 72
"""Below this many columns a table gives way to a list."""


def format_summary(result: Mapping[str, Any], width: int = 100) -> str:
    """Return a summary of a run without colours or control characters.

    Args:
        result: Content of ``result.json``.
        width: Columns of the terminal, at least 40; lines are not longer.

    Raises:
        FileFormatError: If it is no result of ``graftwork fit``.
    """
    view, width = ResultView(result), max(40, width)
    verdict = view.section("verdict")
    badge, meaning = strength_words(verdict, ("No verdict", "The race ended early; --resume goes on."))
    blocks = [f"{badge.upper()}"]
    sentences = [str(item) for item in (*(verdict.get("sentences") or ()), verdict.get("source_sentence")) if item]
    blocks += [wrap_text(sentence, width) for sentence in sentences]
    blocks += [wrap_text(meaning, width)]
    blocks += [wrap_text(f"Note: {plain_text(warning)}", width) for warning in verdict.get("warnings") or ()]
    lines = (
        measured_line(view),
        backbone_line(view),
        untested_line(view),
        model_line(view),
        others_line(view),
        more_rows_sentence(view),
    )
    blocks += [wrap_text(line, width) for line in lines if line]
    blocks.append("\n".join(wrap_text(f"{cell.note}: {cell.text}", width) for cell in key_numbers(view)))
    folded, tasks = folded_scores(view)
    blocks.append(wrap_text(folded, width))
    for table in (scores_table(view, (view.choice, view.reference), tasks), controls_table(view), weights_table(view, tasks)):
        if table is not None:
            blocks.append(render_table(table, width))
    finalists = _finalists_table(view)
    if finalists is not None:
        blocks.append(render_table(finalists, width))
    return "\n\n".join(block for block in blocks if block) + "\n"


def plain_text(text: Any) -> str:
    """Return text without control characters: names from files must not steer the terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in str(text))


def wrap_text(text: str, width: int) -> str:
    """Return text in lines of at most ``width`` characters, without control characters."""
    return textwrap.fill(plain_text(text), width, break_on_hyphens=False)


def _finalists_table(view: ResultView) -> Table | None:
    if not view.finalists:
        return None
    rows: list[list[str | Cell]] = []
    for name in view.finalists:
        ledger = view.plans[name].get("ledger") or {}
        latency = ledger.get("latency_ms_batch1")
        rows.append(
            [
                name,
                "reference" if name == view.reference else percent_interval(view.plans[name].get("delta_m")),
                count(ledger.get("parameters_stored")),
                f"{number(latency)} ms" if latency else count(0),
                duration(ledger.get("wall_seconds") or None),
            ]
        )
    return Table("Finalists", ["Plan", "Delta-m", "Stored parameters", "Latency, 1 row", "Training"], rows)


def _text(cell: str | Cell) -> str:
    if isinstance(cell, str):
        return plain_text(cell)
    lines = [cell.text, f"{cell.mark.sign} {cell.mark.words}" if cell.mark else "", cell.note]
    return plain_text("\n".join(line for line in lines if line))


def render_table(table: Table, width: int) -> str:
    """Return the table drawn by rich, or as a list where the terminal is too narrow for its columns."""
    header, rows = [_text(cell) for cell in table.headers], [[_text(cell) for cell in row] for row in table.rows]
    # Padding and edge take three characters a column.
    needed = sum(max(max(map(len, column.split("\n"))) for column in columns) + 3 for columns in zip(header, *rows))
    # Rich would cut cells to make them fit.
    if width < _NARROW or needed > width:
        return _as_list(table.caption, header, rows, width)
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, title=None, show_edge=False)
    for index, name in enumerate(header):
        # A broken number cannot be read; the list below takes over where it does not fit.
        drawn.add_column(_literal(name), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*map(_literal, row))
    target = io.StringIO()
    Console(file=target, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(drawn)
    lines = [line.rstrip() for line in target.getvalue().splitlines()]
    return "\n".join([wrap_text(table.caption, width), *lines]).rstrip()


def _literal(text: str) -> Any:
    """Return text that rich does not search for markup: a column may be called ``[bold]``."""
    from rich.text import Text

    return Text(text)


def _as_list(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    lines = [wrap_text(caption, width)]
    for row in rows:
        lines.append("")
        lines.append(wrap_text(row[0].replace("\n", ", "), width))
        for name, value in zip(header[1:], row[1:]):
            line = f"{_title(name)}: {', '.join(value.splitlines())}"
            lines.append(textwrap.fill(line, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False))
    return "\n".join(lines)


def _title(header: str) -> str:
    """Return a header of two lines as one: the second in parentheses."""
    name, _, note = header.partition("\n")
    return f"{name} ({note})" if note else name
