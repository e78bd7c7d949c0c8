"""The row that every benchmark reports, and how rows become a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks._timing import format_table

__all__ = ["KEYS", "Row", "as_rows", "check_row", "summary", "table"]

KEYS = ("benchmark", "what", "ours", "peer", "ratio", "target", "unit", "met", "details")
COLUMNS = ("benchmark", "what", "ours", "beside", "unit", "ratio", "target", "met")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One comparison; ``json()`` gives the stored form with exactly :data:`KEYS`."""

    benchmark: str
    what: str
    ours: float
    peer: float | None
    """What ours stands beside: a floor or another library, named in ``beside``; None if there is nothing."""
    beside: str = ""
    unit: str
    """Of ``ours`` and ``peer``: ``s``, ``ms``, ``MiB`` or ``loss`` (1 is the trivial answer)."""
    target: float | None = None
    judged: Literal["ratio", "ours"] = "ratio"
    """What must not be above ``target``."""
    ratio: float | None = None
    """``ours / peer``; None computes it. Interleaved measurements give the median over rounds of the ratio within a round."""
    details: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return the row as it is stored; ``met`` follows from the numbers."""
        ratio = self.ratio if self.ratio is not None or not self.peer else self.ours / self.peer
        judged = ratio if self.judged == "ratio" else self.ours
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": ratio,
            "target": self.target,
            "unit": self.unit,
            "met": None if self.target is None or judged is None else bool(judged <= self.target),
            "details": {"beside": self.beside, "judged": self.judged, **self.details},
        }


def check_row(row: Mapping[str, Any]) -> None:
    """Check the layout of a stored row.

    Raises:
        ValueError: If keys are missing or unknown, a number is not finite, or ``met`` does not follow from the numbers.
    """
    if tuple(row) != KEYS:
        raise ValueError(f"A row needs the keys {KEYS} in this order; got {tuple(row)}.")
    numbers = {key: row[key] for key in ("ours", "peer", "ratio", "target") if row[key] is not None}
    wrong = [key for key, value in numbers.items() if not math.isfinite(value) or (value < 0 and key != "ours")]
    if wrong or row["ours"] is None:
        raise ValueError(f"{row['what']!r}: {', '.join(wrong) or 'ours'} must be a finite number; got {numbers}.")
    if row["met"] is not None:
        judged = row[row["details"].get("judged", "ratio")]
        if row["met"] != (judged <= row["target"]):
            raise ValueError(f"{row['what']!r}: met is {row['met']}, but {judged} stands against the target {row['target']}.")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as aligned text, one line each."""
    return format_table([_line(row) for row in rows], COLUMNS)


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one sentence on how many targets are met, and the names of the missed ones."""
    judged = [row for row in rows if row["met"] is not None]
    missed = [f"{row['benchmark']}: {row['what']}" for row in judged if not row["met"]]
    text = f"{len(judged) - len(missed)} of {len(judged)} targets met."
    return text + (f" Missed: {'; '.join(missed)}." if missed else "")


def _line(row: Mapping[str, Any]) -> dict[str, Any]:
    judged = row["details"].get("judged", "ratio")
    unit = row["unit"] if judged == "ours" else "x"
    named = row["details"].get("beside", "")
    return {
        **row,
        "beside": None if row["peer"] is None else f"{row['peer']:.3g} {named}".rstrip(),
        "target": None if row["target"] is None else f"<= {row['target']:g} {unit}",
        "met": {None: "-", True: "yes", False: "NO"}[row["met"]],
    }


def as_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows in their stored form."""
    return [row.json() for row in rows]
