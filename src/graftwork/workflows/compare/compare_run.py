"""A finished comparison, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json

__all__ = ["CompareRun", "load_comparison"]


@dataclass(frozen=True)
class CompareRun:
    """What ``compare`` returns: the folder and what is in ``result.json``."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def leaderboard(self) -> tuple[Mapping[str, Any], ...]:
        """One row a plan, the best first; plans that failed come last, with the reason in ``message``."""
        return tuple(self.result["leaderboard"])

    @property
    def best(self) -> str:
        """Name of the plan that validation rows choose."""
        return str(self.result["verdict"]["choice"])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The leaderboard in plain sentences."""
        return tuple(self.result["verdict"]["sentences"])

    @property
    def advice(self) -> tuple[str, ...]:
        """Which tasks to train together, in plain sentences; empty if it was not measured."""
        return tuple((self.result.get("grouping") or {}).get("advice", ()))

    @property
    def report(self) -> Path:
        """The report, one file that opens in any browser."""
        return self.folder / "report.html"

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.compare_tables import format_comparison

        return format_comparison(dict(self.result), width)

    def __repr__(self) -> str:
        return f"CompareRun({str(self.folder)!r}, {len(self.leaderboard)} plans, best={self.best!r})"


def load_comparison(folder: str | Path) -> CompareRun:
    """Read a finished comparison.

    Raises:
        FileFormatError: If the folder holds none.
    """
    folder = Path(folder)
    file = folder / "result.json"
    if not file.exists():
        begun = (folder / "run.json").exists()
        step = f"Finish it with: graftwork compare --resume {folder}" if begun else "Give a folder that graftwork compare wrote."
        raise FileFormatError(f"{folder} holds no finished comparison: there is no result.json. {step}")
    result = read_json(file)
    if not isinstance(result, dict) or "leaderboard" not in result:
        raise FileFormatError(f"{file} is no result of graftwork compare. Give a folder that graftwork compare wrote.")
    return CompareRun(folder, result)
