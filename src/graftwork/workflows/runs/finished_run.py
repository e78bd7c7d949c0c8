"""What a finished run of any verb has: a folder, a result, sentences that say it, a leaderboard, and a report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from graftwork.core.errors import ConfigError, FileFormatError, GraftworkError
from graftwork.core.files import read_json
from graftwork.core.optional import require

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.reporting.result_view import ResultView

__all__ = ["FinishedRun", "read_result"]

_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What comes of values that are other ones than were written."""


@dataclass(frozen=True, repr=False)
class FinishedRun(ABC):
    """A run folder and what is in its ``result.json``."""

    folder: Path
    result: Mapping[str, Any]

    @abstractmethod
    def view(self) -> ResultView:
        """Return the result with defaults for what it may lack.

        Raises:
            ConfigError: After a dry run, which has no result.
            FileFormatError: If it is no result of this verb.
        """

    @abstractmethod
    def summary(self, width: int = 100) -> str:
        """Return the result as text for a terminal of ``width`` columns."""

    def checked(self) -> Self:
        """Return this run if all that it may be asked for later can be given.

        Raises:
            FileFormatError: If its result is damaged; the message names the file.
        """
        from graftwork.reporting.leaderboard import leaderboard_columns, leaderboard_rows

        file = self.folder / "result.json"
        try:
            complete = isinstance(self.verdict["choice"], str) and all(isinstance(line, str) for line in self.sentences)
            complete = complete and isinstance(self.summary(), str) and self._repr_html_() is not None
            leaderboard_columns(self.view()), leaderboard_rows(self.view())
        except _DAMAGE as error:
            # What says already what is wrong does not name the file.
            reason = str(error) if isinstance(error, GraftworkError) else f"{type(error).__name__}: {error!s:.300}"
            raise FileFormatError(
                f"{file} is damaged: {reason}. Restore it from a copy, or remove it and go on with --resume."
            ) from error
        if not complete:
            raise FileFormatError(f"{file} is damaged: its verdict has no choice or sentences. Restore it from a copy.")
        return self

    @property
    def verdict(self) -> Mapping[str, Any]:
        """The verdict, as in ``result.json``.

        Raises:
            ConfigError: After a dry run, which has none.
        """
        found: Mapping[str, Any] = self.finished_result()["verdict"]
        return found

    def finished_result(self) -> Mapping[str, Any]:
        """Return the result.

        Raises:
            ConfigError: After a dry run, which has none.
        """
        if not self.result:
            raise ConfigError(
                f"The run in {self.folder} was checked and estimated, but nothing was trained. Start the race with: "
                f"graftwork fit --resume {self.folder}"
            )
        return self.result

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in plain sentences."""
        return tuple(self.verdict["sentences"])

    @property
    def report(self) -> Path:
        """The report, one file that opens in any browser."""
        return self.folder / "report.html"

    @property
    def where(self) -> str:
        """Where the report is, or the results if there is none, as one line."""
        return f"report: {self.report}" if self.report.exists() else f"results: {self.folder}"

    def fit_summary(self, width: int = 100) -> str:
        """Return what the command line prints at the end: :meth:`summary`, and where the report is."""
        return f"{self.summary(width)}\n{self.where}"

    def leaderboard(self) -> pd.DataFrame:
        """Return a row a plan, in the order of the report.

        Returns:
            ``plan``, ``role``, ``group``, ``finalist``, ``chosen``; ``delta_m`` (percent against separate models) with
            ``delta_m_low`` and ``delta_m_high`` (95 %); for each task ``test:TASK``, ``test_low:TASK``, ``test_high:TASK`` (its
            primary metric on the test rows, named in ``attrs["metrics"]``); ``parameters`` (stored), ``seconds`` (training),
            ``latency_ms`` (one row), ``note``. A comparison has ``p_value`` and ``label`` besides. Numbers that were not
            measured are NaN. All stand in ``result.json``; see :mod:`graftwork.reporting.leaderboard`.

        Raises:
            ConfigError: After a dry run.
        """
        from graftwork.reporting.leaderboard import leaderboard_columns, leaderboard_rows

        pandas = require("pandas", extra="data", purpose="The leaderboard as a table")
        view = self.view()
        frame = pandas.DataFrame(leaderboard_rows(view), columns=leaderboard_columns(view))
        frame.attrs["metrics"] = {task.name: view.metric(task) for task in view.tasks}
        return frame

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows; None, so that it shows the text, where there is no result."""
        if not self.result:
            return None
        from graftwork.reporting.notebook import notebook_html

        return notebook_html(self.view(), str(self.folder))


def read_result(folder: Path, *, verb: str, what: str, key: str, repair: str = "") -> dict[str, Any]:
    """Read ``result.json``.

    Args:
        folder: The run folder.
        verb: The verb that wrote it.
        what: What the folder should hold, for messages.
        key: An entry that only results of this verb have.
        repair: What to do about a file that is none; by default, to give another folder.

    Raises:
        FileFormatError: If the folder holds no finished run of the verb.
    """
    file = folder / "result.json"
    other = f"Give a folder that graftwork {verb} wrote."
    if not file.exists():
        step = f"Finish it with: graftwork {verb} --resume {folder}" if (folder / "run.json").exists() else other
        raise FileFormatError(f"{folder} holds no finished {what}: there is no result.json. {step}")
    result = read_json(file)
    if not isinstance(result, dict) or key not in result:
        raise FileFormatError(f"{file} is no result of graftwork {verb}. {repair or other}")
    return result
