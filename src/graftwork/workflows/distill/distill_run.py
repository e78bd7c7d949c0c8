"""A finished distillation, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.workflows.runs.finished_run import FinishedRun, read_result

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.interfaces.shared_model import SharedModel
    from graftwork.reporting.distill_view import DistillView

__all__ = ["DistillRun", "load_distillation"]


@dataclass(frozen=True, repr=False)
class DistillRun(FinishedRun):
    """What ``distill`` returns: the folder and what is in ``result.json``."""

    def view(self) -> DistillView:
        """Return the result with defaults for what it may lack."""
        from graftwork.reporting.distill_view import DistillView

        return DistillView(self.finished_result())

    @property
    def student(self) -> str:
        """The student, as it was named."""
        return str(self.result["student"])

    @property
    def teachers(self) -> tuple[Mapping[str, Any], ...]:
        """Each teacher: weight, ways, relevance, costs, its own scores, what the student kept of it."""
        return tuple(self.result["teachers"])

    @property
    def changes(self) -> Mapping[str, Mapping[str, float]]:
        """Change of each task's primary metric against the student alone, in percent with its interval; positive is better."""
        return dict(self.result["changes"])

    @property
    def flips(self) -> Mapping[str, Mapping[str, Any]]:
        """Shares of test rows that turned right and wrong against the student alone, by task."""
        return dict(self.result["flips"])

    def model(self) -> SharedModel:
        """Return the student in ``model/``, in evaluation mode."""
        from graftwork.training.model_loading import load_model

        return load_model(self.folder / "model")[0]

    def predict(self, source: Any, tasks: Sequence[str] | None = None) -> pd.DataFrame:
        """Return predictions for new rows, pictures or texts; see :class:`graftwork.serving.predict.Predictor`."""
        from graftwork.serving.predict import Predictor

        return Predictor(self.folder).predict(source, tasks)

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.distill_view import format_distillation

        return format_distillation(self.result, width)

    def __repr__(self) -> str:
        return f"DistillRun({str(self.folder)!r}, student={self.student!r})"


def load_distillation(folder: str | Path) -> DistillRun:
    """Read a finished distillation.

    Raises:
        FileFormatError: If the folder holds none, or its result is damaged.
    """
    folder = Path(folder)
    return DistillRun(folder, read_result(folder, verb="distill", what="distillation", key="teachers")).checked()
