"""Plain-text tables and paragraphs that fit the terminal. Standard library only, because ``systems`` and ``show`` must answer at
once."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from graftwork.core.plain_text import own_code

__all__ = ["colour", "format_table", "paragraph", "terminal_width"]

_CODES = {"green": "32", "yellow": "33", "red": "31", "grey": "90", "bold": "1"}


def terminal_width() -> int:
    """Return the width to write for: the terminal's, ``$COLUMNS``, or 120 where the output goes to a file; at least 40."""
    # A file has no width; 120 keeps lines readable and tables whole.
    if "COLUMNS" not in os.environ and not sys.stdout.isatty():
        return 120
    return max(40, shutil.get_terminal_size((100, 24)).columns)


def colour(text: str, name: str) -> str:
    """Return ``text`` in a colour if the output is a terminal that wants colours (``NO_COLOR`` is respected)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    start, end = (own_code(code, sys.stdout) for code in (f"\x1b[{_CODES[name]}m", "\x1b[0m"))
    return f"{start}{text}{end}"


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    stretch: int,
    right: Sequence[int] = (),
    wrap: bool = False,
) -> str:
    """Return a table whose column ``stretch`` is cut, or wrapped, so that lines fit.

    Args:
        header: Titles of the columns.
        rows: Texts, one sequence a row.
        width: Characters in a line.
        stretch: Index of the column that gives way; it keeps at least 12 characters.
        right: Indices of columns to align on the right.
        wrap: Go on in further lines where the text of that column is too long, instead of cutting it.

    Example:
        >>> print(format_table(["slug", "title"], [["ties", "Resolving Interference When Merging Models"]], width=26, stretch=1))
        slug  title
        ----  --------------------
        ties  Resolving Interfere…
    """
    columns = list(zip(*[header, *rows], strict=True))
    widths = [max(map(len, column)) for column in columns]
    # Two spaces between columns.
    others = sum(widths) - widths[stretch] + 2 * (len(widths) - 1)
    # The other columns are never cut, so a line may be longer than the terminal.
    widths[stretch] = min(widths[stretch], max(12, width - others))

    def line(cells: Sequence[str]) -> str:
        parts = []
        for index, (cell, size) in enumerate(zip(cells, widths, strict=True)):
            text = cell if len(cell) <= size else cell[: size - 1].rstrip() + "…"
            parts.append(text.rjust(size) if index in right else text.ljust(size))
        return "  ".join(parts).rstrip()

    def lines(cells: Sequence[str]) -> list[str]:
        if not wrap or len(cells[stretch]) <= widths[stretch]:
            return [line(cells)]
        first, *others = textwrap.wrap(cells[stretch], widths[stretch], break_on_hyphens=False)
        empty = [""] * len(cells)
        filled = [
            [*row[:stretch], text, *row[stretch + 1 :]] for row, text in [(cells, first), *((empty, text) for text in others)]
        ]
        return [line(row) for row in filled]

    body = [text for row in rows for text in lines(list(row))]
    return "\n".join([line(header), "  ".join("-" * size for size in widths), *body])


def paragraph(text: str, *, width: int, label: str = "", indent: int = 0) -> str:
    """Return ``text`` wrapped to ``width``, the first line after ``label`` and the others under the text.

    Args:
        text: One paragraph; white space is collapsed.
        width: Characters in a line.
        label: Stands before the first line.
        indent: Column at which the text begins.
    """
    head = label.ljust(indent) if label else " " * indent
    return textwrap.fill(" ".join(text.split()), max(width, indent + 20), initial_indent=head, subsequent_indent=" " * indent)
