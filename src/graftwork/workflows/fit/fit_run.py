"""A finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FitRun", "load_run"]


@dataclass(frozen=True)
class FitRun:
    """What ``fit`` returns: the folder and what is in ``result.json``."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def choice(self) -> str:
        """Name of the plan to use."""
        return str(self.result["verdict"]["choice"])

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in plain sentences."""
        return tuple(self.result["verdict"]["sentences"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What limits the verdict or went wrong on the way."""
        return tuple(self.result["verdict"]["warnings"])

    @property
    def report(self) -> Path:
        """The report, one file that opens in any browser."""
        return self.folder / "report.html"

    def suite(self) -> Suite:
        """Return the suite that the run was made on."""
        from graftwork.data.store import load_suite

        return load_suite(self.folder / "suite")

    def predict(self, source: Any, tasks: Sequence[str] | None = None) -> pd.DataFrame:
        """Return predictions of the chosen model for new rows, pictures or texts; see :class:`graftwork.serving.predict.Predictor`."""
        from graftwork.serving.predict import Predictor

        return Predictor(self.folder).predict(source, tasks)

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.tables import format_summary

        return format_summary(dict(self.result), width)

    def __repr__(self) -> str:
        return f"FitRun({str(self.folder)!r}, choice={self.choice!r})"


def load_run(folder: str | Path) -> FitRun:
    """Read a finished run.

    Raises:
        FileFormatError: If the folder holds no finished run.
    """
    folder = Path(folder)
    file = folder / "result.json"
    if not file.exists():
        begun = (folder / "run.json").exists()
        step = f"Finish it with: graftwork fit --resume {folder}" if begun else "Give a folder that graftwork fit wrote."
        raise FileFormatError(f"{folder} holds no finished run: there is no result.json. {step}")
    result = read_json(file)
    if not isinstance(result, dict) or "verdict" not in result:
        raise FileFormatError(
            f"{file} is no result of graftwork fit. Restore it from a copy, or remove it and run with --resume."
        )
    return FitRun(folder, result)
