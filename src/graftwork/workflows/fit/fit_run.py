"""A finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.data.suite import Suite
from graftwork.workflows.runs.finished_run import FinishedRun, read_result

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.reporting.result_view import ResultView

__all__ = ["FitRun", "load_run"]


@dataclass(frozen=True, repr=False)
class FitRun(FinishedRun):
    """What ``fit`` returns: the folder and what is in ``result.json``."""

    def view(self) -> ResultView:
        """Return the result with defaults for what it may lack."""
        from graftwork.reporting.result_view import ResultView

        return ResultView(self.finished_result())

    @property
    def choice(self) -> str:
        """Name of the plan to use."""
        return str(self.verdict["choice"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What limits the verdict or went wrong on the way."""
        return tuple(self.verdict["warnings"])

    def suite(self) -> Suite:
        """Return the suite that the run was made on."""
        from graftwork.data.store import load_suite

        return load_suite(self.folder / "suite")

    def predict(self, source: Any, tasks: Sequence[str] | None = None, *, plan: str | None = None) -> pd.DataFrame:
        """Return predictions of the chosen model, or of another finalist's, for new rows, pictures or texts; see
        :class:`graftwork.serving.predict.Predictor`."""
        from graftwork.serving.predict import Predictor

        return Predictor(self.folder, plan=plan).predict(source, tasks)

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.tables import format_summary

        return format_summary(self.view().result, width)

    def __repr__(self) -> str:
        return f"FitRun({str(self.folder)!r}, {f'choice={self.choice!r}' if self.result else 'dry run'})"


def load_run(folder: str | Path) -> FitRun:
    """Read a finished run.

    Raises:
        FileFormatError: If the folder holds no finished run, or its result is damaged.
    """
    folder = Path(folder)
    repair = "Restore it from a copy, or remove it and run with --resume."
    return FitRun(folder, read_result(folder, verb="fit", what="run", key="verdict", repair=repair)).checked()
