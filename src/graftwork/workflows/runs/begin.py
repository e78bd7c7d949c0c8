"""How a run of any verb begins or goes on: its folder, the settings that hold, what may fail before anything is trained, the
command."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from graftwork.core.errors import ConfigError, DataError, MissingDependencyError
from graftwork.core.folders import check_folder
from graftwork.core.records import Plan
from graftwork.workflows.runs.devices import ACCELERATED_WORKERS, check_device_of_run, device_of_run
from graftwork.workflows.runs.named_again import check_named_again
from graftwork.workflows.runs.run_folder import RUN_KIND, RunFolder
from graftwork.workflows.runs.same_run import check_same_data
from graftwork.workflows.runs.settings import FitSettings
from graftwork.workflows.runs.stored_state import check_state, going_on

__all__ = [
    "DEMO",
    "Call",
    "begun_run",
    "check_demo",
    "default_out_folder",
    "is_finished",
    "repeat_command",
    "source_name",
    "split_plans",
]

DEMO = "emoji"
"""The embedded suite that is taken where no data is named."""
SomeSettings = TypeVar("SomeSettings", bound=FitSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How a verb was called, apart from its settings."""

    verb: str
    resume: bool = False
    """Whether a run in the folder may go on."""
    command: str | None = None
    """The command that the report shows; None makes it from the settings."""
    extra: Sequence[Plan] = ()
    """Plans that were handed in as records."""
    source: Any = None
    """What the caller named as data; None if a run goes on with its own."""


@contextmanager
def begun_run(
    run: RunFolder,
    given: SomeSettings,
    resumed: Callable[[RunFolder], SomeSettings],
    call: Call,
) -> Iterator[SomeSettings]:
    """Begin a run, or open the one in the folder; yield the settings that hold, and release the folder at the end.

    Args:
        run: The run folder, neither created nor opened.
        given: Settings of this call.
        resumed: Returns the settings of an opened run, with what this call may change.
        call: How the verb was called.

    Raises:
        ConfigError: If the folder holds files of the user, a run that is not to go on, or that of another verb, ``resumed`` refuses, or
            the run would read files that this call does not name (see :mod:`graftwork.workflows.runs.named_again`).
    """
    is_new, verb = not (call.resume and run.exists()), call.verb
    if is_new and check_folder(run.path, RUN_KIND):
        raise ConfigError(
            f"{run.path} already holds a run. Go on with it by --resume (resume=True), or choose another folder with --out."
        )
    if is_new and call.source is None and given.source == DEMO:
        check_demo(verb)
    if not is_new:
        _check_verb(run, verb)
        run.open()
        try:
            check_state(run.state, run.path / "run.json", type(given))
            settings = resumed(run)
            check_device_of_run(run.state, run.path, settings)
            if not is_finished(run, "result.json", "report.html", *(["model.onnx"] if verb == "fit" else [])):
                check_named_again(run, settings, given, names_source=call.source is not None, names_plans=bool(call.extra))
            if call.source is not None:
                check_same_data(run, call.source, settings.data)
        except BaseException:
            run.release()
            raise
    else:
        facts: dict[str, Any] = {} if verb == "fit" else {"verb": verb}
        facts |= device_of_run(given)
        # Written down, so that it is the same wherever the run goes on.
        shared = given.workers is None and facts["device"] != "cpu"
        settings = replace(given, workers=min(ACCELERATED_WORKERS, given.num_workers)) if shared else given
        facts["extra_plans"] = [plan.to_json() for plan in call.extra]
        run.create(settings.to_json(), call.command or repeat_command(settings, verb), **facts)
    try:
        with ExitStack() as stack:
            if not is_new:
                stack.enter_context(going_on(run.path))
            yield settings
    except (ConfigError, DataError, MissingDependencyError):
        # Errors of the user only. Whatever else went wrong, the folder is kept with its logs.
        if is_new and "schedule" not in run.state:  # wrong data or settings, a missing package: leave no half-made run behind
            run.discard()
        raise
    finally:
        run.release()


def is_finished(run: RunFolder, *files: str) -> bool:
    """Return whether an opened run reached its end and still has these files."""
    return run.state["state"] == "done" and all((run.path / name).exists() for name in files)


def check_demo(verb: str) -> None:
    """Refuse the demo where its name is that of a file or folder here.

    Args:
        verb: What follows ``graftwork`` on the command line.

    Raises:
        ConfigError: If it would be read in place of the demo.
    """
    if Path(DEMO).exists():
        raise ConfigError(
            f"No data was named, and the demo suite {DEMO!r} has the name of a file or folder here, which would be read in its place. "
            f"Name your data (graftwork {verb} ./{DEMO}), or call this in another folder for the demo."
        )


def source_name(source: Any) -> str:
    """Return ``source`` of the settings: a path or the name of a suite, ``"emoji"`` for None, ``"<data>"`` for an object."""
    if source is None:
        return DEMO
    return str(source) if isinstance(source, str | Path) else "<data>"


def _check_verb(run: RunFolder, verb: str) -> None:
    """Refuse to go on with a run of another verb.

    Raises:
        ConfigError: If another verb began the run.
    """
    run.check_contents()  # before the first file is read
    found = run.read_state().get("verb", "fit")
    if found != verb:
        raise ConfigError(
            f"The run in {run.path} was begun by graftwork {found}. Go on with: graftwork {found} --resume {run.path}"
        )


def split_plans(plans: str | Sequence[str | Plan] | None) -> tuple[str | list[str] | None, list[Plan]]:
    """Return names and records of what a caller gave as plans."""
    if plans is None or isinstance(plans, str):
        return plans, []
    return [plan for plan in plans if isinstance(plan, str)] or None, [plan for plan in plans if isinstance(plan, Plan)]


def default_out_folder(source: str, prefix: str = "") -> Path:
    """Return ``runs/<prefix><name>-<date>-<time>``, a folder that does not exist yet."""
    name = "data" if source == "<data>" else Path(source).resolve().stem if Path(source).exists() else source
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name).strip("-") or "run"
    base = Path("runs") / f"{prefix}{safe}-{datetime.now():%Y%m%d-%H%M%S}"
    # Two runs that begin in one second.
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


_REPEATED = {
    "task_kinds": "--task-kind",
    "metrics": "--metric",
    "class_weights": "--class-weight",
    "histories": "--history",
    "weights": "--weight",
    "missing": "--missing",
    "overrides": "--set",
}
"""Flags that are given once an item, by the name of their setting."""


def repeat_command(settings: FitSettings, verb: str = "fit") -> str:
    """Return the command line that repeats a run with these settings.

    Example:
        >>> repeat_command(FitSettings.of_user("table.csv", targets="a,b", steps=200, seeds=2))
        'graftwork fit table.csv --targets a,b --steps 200 --seeds 2'
    """
    if settings.source == "<data>":
        return f"graftwork.{verb}(...) on data handed in from Python"
    default = type(settings)()
    words = ["graftwork", verb, *([settings.source] if settings.source != DEMO else [])]
    for key, value in settings.to_json().items():
        # Written with flags of their own below, or no part of what the run computes.
        if key in ("source", "checkpoint_seconds", "workers", "strict", *_REPEATED):
            continue
        if value == default.to_json()[key]:
            continue
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
            continue
        unit = {"time_limit": "s", "max_latency": "ms"}.get(key, "")
        text = ",".join(value) if isinstance(value, list) else f"{value:g}{unit}" if unit else str(value)
        words += [f"--{key.replace('_', '-')}", text]
    words += ["--strict"] if settings.data.strict else []
    for key, flag in _REPEATED.items():
        items = settings.to_json().get(key) or ()
        parts = [f"{name}={value}" for name, value in items.items()] if isinstance(items, Mapping) else items
        words += [word for part in parts for word in (flag, part)]
    return shlex.join(words)
