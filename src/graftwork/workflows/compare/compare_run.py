"""A finished comparison, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.workflows.runs.finished_run import FinishedRun, read_result

if TYPE_CHECKING:
    from graftwork.reporting.compare_view import CompareView

__all__ = ["CompareRun", "load_comparison"]


@dataclass(frozen=True, repr=False)
class CompareRun(FinishedRun):
    """What ``compare`` returns: the folder and what is in ``result.json``."""

    def view(self) -> CompareView:
        """Return the result with defaults for what it may lack."""
        from graftwork.reporting.compare_view import CompareView

        return CompareView(self.finished_result())

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """The leaderboard as it stands in ``result.json``: one row a plan, the best first; plans that failed come last, with the
        reason in ``message``."""
        return tuple(self.result["leaderboard"])

    @property
    def best(self) -> str:
        """Name of the plan that validation rows choose."""
        return str(self.verdict["choice"])

    @property
    def advice(self) -> tuple[str, ...]:
        """Which tasks to train together, in plain sentences; empty if it was not measured."""
        return tuple((self.result.get("grouping") or {}).get("advice", ()))

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.compare_tables import format_comparison

        return format_comparison(self.result, width)

    def __repr__(self) -> str:
        return f"CompareRun({str(self.folder)!r}, {len(self.rows)} plans, best={self.best!r})"


def load_comparison(folder: str | Path) -> CompareRun:
    """Read a finished comparison.

    Raises:
        FileFormatError: If the folder holds none, or its result is damaged.
    """
    folder = Path(folder)
    return CompareRun(folder, read_result(folder, verb="compare", what="comparison", key="leaderboard")).checked()
