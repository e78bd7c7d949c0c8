"""What a finished run of any verb has: a folder, a result, sentences that say it, and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json

__all__ = ["FinishedRun", "read_result"]


@dataclass(frozen=True)
class FinishedRun:
    """A run folder and what is in its ``result.json``."""

    folder: Path
    result: Mapping[str, Any]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in plain sentences."""
        return tuple(self.result["verdict"]["sentences"])

    @property
    def report(self) -> Path:
        """The report, one file that opens in any browser."""
        return self.folder / "report.html"


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
