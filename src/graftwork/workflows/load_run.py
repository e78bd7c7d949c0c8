"""A run folder back as the object that ``fit``, ``compare``, ``tune`` or ``distill`` returned. Only JSON is read: nothing that
the folder names is imported or run, so the folder may be anybody's."""

from __future__ import annotations

from pathlib import Path

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json
from graftwork.workflows.compare.compare_run import CompareRun
from graftwork.workflows.distill.distill_run import DistillRun
from graftwork.workflows.fit.fit_run import FitRun
from graftwork.workflows.quantities import format_seconds
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.tune.tune_run import TuneRun

__all__ = ["load_run"]

_KINDS: dict[str, type[FitRun] | type[CompareRun] | type[TuneRun] | type[DistillRun]] = {
    "graftwork-fit-1": FitRun,
    "graftwork-compare-1": CompareRun,
    "graftwork-tune-1": TuneRun,
    "graftwork-distill-1": DistillRun,
}
_REACHED = {
    "created": "its data was not read to the end",
    "suite": "its data is read, its plans are not estimated yet",
    "scheduled": "its data is read and its schedule is made",
}


def load_run(folder: str | Path) -> FitRun | CompareRun | TuneRun | DistillRun:
    """Read a finished run.

    Args:
        folder: The run folder that :func:`graftwork.fit`, :func:`graftwork.compare`, :func:`graftwork.tune` or
            :func:`graftwork.distill` wrote, or a copy of it.

    Returns:
        What that call returned. Predicting from it needs the model in the folder, all else ``result.json`` alone.

    Raises:
        FileFormatError: If the folder does not exist or is no run, its run is unfinished (the message says how far it is and how
            to go on), or its result is damaged.

    Example:
        >>> load_run("runs/houses").leaderboard()  # doctest: +SKIP
    """
    folder = Path(folder)
    file = folder / "result.json"
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileFormatError(f"{folder} {what}. Give the run folder that graftwork fit or graftwork compare printed.")
    if not file.exists():
        raise FileFormatError(_unfinished(folder))
    result = read_json(file)
    kind = _KINDS.get(str(result.get("format"))) if isinstance(result, dict) else None
    if kind is None:
        found = result.get("format") if isinstance(result, dict) else type(result).__name__
        raise FileFormatError(
            f"{file} is no result that this version reads: its format is {found!r}, allowed are {', '.join(_KINDS)}. Give a run "
            "folder of graftwork fit or graftwork compare."
        )
    return kind(folder, result).checked()


def _unfinished(folder: Path) -> str:
    """Return what is there in place of a result, and what to do."""
    if not (folder / "run.json").exists():
        for near in (folder.parent, *sorted(path.parent for path in folder.glob("*/result.json"))):
            if (near / "run.json").exists():
                return f"{folder} is no run folder, but {near} is one. Give that."
        return (
            f"{folder} is no run of graftwork: it holds neither result.json nor run.json. Give the folder that graftwork fit or "
            "graftwork compare printed."
        )
    state = RunFolder(folder).read_state()
    verb = str(state.get("verb") or "fit")
    reached = _REACHED.get(str(state.get("state")), "it ended before its result was written")
    jobs = sum(1 for _ in folder.glob("jobs/*/result.json"))
    used = state.get("seconds_used")
    time = f", after {format_seconds(used)}" if isinstance(used, int | float) and used > 0 else ""
    return (
        f"{folder} holds an unfinished run of graftwork {verb}: {reached}, and {jobs} job{'s are' if jobs != 1 else ' is'} "
        f"finished{time}; result.json is missing. Go on with: graftwork {verb} --resume {folder}"
    )
