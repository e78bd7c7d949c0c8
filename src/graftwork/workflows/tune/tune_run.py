"""A finished tuning, read from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.workflows.runs.finished_run import FinishedRun, read_result

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.interfaces.shared_model import SharedModel
    from graftwork.reporting.tune_view import TuneView

__all__ = ["TuneRun", "load_tuning"]


@dataclass(frozen=True, repr=False)
class TuneRun(FinishedRun):
    """What ``tune`` returns: the folder and what is in ``result.json``."""

    def view(self) -> TuneView:
        """Return the result with defaults for what it may lack."""
        from graftwork.reporting.tune_view import TuneView

        return TuneView(self.finished_result())

    @property
    def method(self) -> str:
        """Name of the method that was used."""
        return str(self.result["method"])

    @property
    def ledger(self) -> Mapping[str, Any]:
        """What the tuning cost: numbers that learn and are stored, bytes held for the backward pass, resident memory, seconds."""
        return dict(self.result["ledger"])

    @property
    def costs(self) -> tuple[Mapping[str, Any], ...]:
        """What every method costs on this backbone and these rows, as measured on a few steps."""
        return tuple(self.result["costs"])

    @property
    def delta_folder(self) -> Path:
        """Folder with what was learned: the delta of the backbone, the heads, and how they are put together."""
        return self.folder / "delta"

    def model(self, backbone: str = "") -> SharedModel:
        """Return the tuned model, in evaluation mode: the backbone by its name, the delta attached, the heads on it.

        Args:
            backbone: Name of the backbone, where it is a folder or would have to be downloaded; see
                :func:`~graftwork.training.tuned_model.load_tuned`.
        """
        from graftwork.training.tuned_model import load_tuned

        return load_tuned(self.delta_folder, backbone=backbone)[0]

    def predict(self, source: Any, tasks: Sequence[str] | None = None) -> pd.DataFrame:
        """Return predictions for new rows, pictures or texts; see :class:`graftwork.serving.predict.Predictor`."""
        from graftwork.serving.predict import Predictor

        return Predictor(self.folder).predict(source, tasks)

    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal."""
        from graftwork.reporting.tune_view import format_tuning

        return format_tuning(self.result, width)

    def __repr__(self) -> str:
        return f"TuneRun({str(self.folder)!r}, method={self.method!r})"


def load_tuning(folder: str | Path) -> TuneRun:
    """Read a finished tuning.

    Raises:
        FileFormatError: If the folder holds none, or its result is damaged.
    """
    folder = Path(folder)
    return TuneRun(folder, read_result(folder, verb="tune", what="tuning", key="costs")).checked()
