"""What ``rank`` returns: the folder and what is in its ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.folders import FolderKind
from graftwork.core.optional import require

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RANK_KIND", "RankRun"]

RANK_KIND = FolderKind(marker="result.json", format="graftwork-rank-1", noun="a ranking of graftwork")


@dataclass(frozen=True, repr=False)
class RankRun:
    """A finished ranking."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def best(self) -> str:
        """Name of the recommended source."""
        return str(self.result["verdict"]["choice"])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The recommendation."""
        return tuple(self.result["verdict"]["sentences"])

    @property
    def where(self) -> str:
        """Where the report is."""
        return f"Report: {self.folder / 'report.html'}"

    def table(self) -> pd.DataFrame:
        """Return one row a source, task and score, the best source first.

        Returns:
            ``source``, ``task``, ``score``, ``value``, ``low``, ``high``, ``mean_rank``, ``first_share``, ``ms_per_row``,
            ``parameters``, ``width``.
        """
        pandas = require("pandas", extra="data", purpose="The ranking as a table")
        rows = [
            {
                "source": source["name"],
                "task": task,
                "score": score,
                **cell,
                **{key: source["standing"][key] for key in ("mean_rank", "first_share")},
                **{key: source[key] for key in ("ms_per_row", "parameters", "width")},
            }
            for source in self.result["sources"]
            for task, cells in source["scores"].items()
            for score, cell in cells.items()
        ]
        return pandas.DataFrame(rows)

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.rank_report import format_rank_summary

        return format_rank_summary(self.result, width)

    def __repr__(self) -> str:
        return f"RankRun({str(self.folder)!r}, best={self.best!r})"
