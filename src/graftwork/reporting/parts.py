"""What a report is put together from: tables with judged cells, and figures that always carry the same numbers as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graftwork.reporting.words import Mark

__all__ = ["Cell", "Figure", "Table"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    note: str = ""
    """A second, smaller line."""
    mark: Mark | None = None
    """Judgement shown as sign and words before the note."""
    strong: bool = False
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose first column names its rows."""

    caption: str
    headers: Sequence[str | Cell]
    rows: Sequence[Sequence[str | Cell]]
    highlight: int | None = None
    """Index of the row to set off, if any."""


@dataclass(frozen=True, slots=True)
class Figure:
    """An interactive plot as plain data, with its text alternative.

    Colours inside ``data`` and ``layout`` are written ``var(--name)``: the page resolves them against its style sheet, and again
    when the reader switches between light and dark.
    """

    name: str
    """Identifier in the page, unique."""
    summary: str
    """What the plot shows, in one or two sentences, for screen readers and as caption."""
    table: Table
    """The same numbers."""
    data: list[dict[str, Any]] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    min_width: int = 0
    """Pixels below which the plot scrolls inside its box instead of shrinking."""

    @property
    def height(self) -> int:
        """Pixels of the plot's box."""
        return int(self.layout.get("height", 360))
