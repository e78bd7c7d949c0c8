"""A finished run, read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.optional import require
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

    def importance(self) -> pd.DataFrame:
        """Return how important each column is for each task: by how much the task's metric gets worse if the column is shuffled
        among rows that the model did not learn from.

        Returns:
            ``task``, ``column``, ``metric``, ``importance`` (in units of the metric; below 0 it got better), ``importance_low`` and
            ``importance_high`` (95 %; NaN if there was no time), the most important column of each task first. ``attrs`` holds
            ``plan``, ``rows`` and ``repeats``; without any row, ``attrs["reason"]`` says why.

        Raises:
            ConfigError: After a dry run.
        """
        from graftwork.reporting.inspection_sections import importance_rows

        pandas = require("pandas", extra="data", purpose="The importance of columns as a table")
        view = self.view()
        names = ["task", "column", "metric", "importance", "importance_low", "importance_high"]
        frame: pd.DataFrame = pandas.DataFrame(list(importance_rows(view)), columns=names)
        frame[names[3:]] = frame[names[3:]].astype("float64")
        found = view.section("importance")
        frame.attrs |= {key: found[key] for key in ("plan", "rows", "repeats", "reason") if key in found}
        if not found:
            frame.attrs["reason"] = "the run is of a version that did not measure it"
        return frame

    def explain(
        self, source: Any, tasks: Sequence[str] | None = None, *, most: int | None = None, plan: str | None = None
    ) -> pd.DataFrame:
        """Return by how much each column moves the prediction of each row; see
        :func:`graftwork.serving.explain.explain`."""
        from graftwork.serving.explain import explain
        from graftwork.serving.predict import Predictor

        return explain(Predictor(self.folder, plan=plan), source, tasks, most=most)

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
