"""Whether a call goes on with the run that is in the folder: the settings that it asks for are those of the run, and the data is
what the run has read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import Plan
from graftwork.data.options import DataOptions
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["asked_for", "changed_data", "check_same_data", "resumed_settings", "written_since"]

SomeSettings = TypeVar("SomeSettings", bound=FitSettings)


def asked_for(arguments: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the arguments that a caller gave: not None, not an empty mapping, no flag that is off.

    A value that equals the default counts as given, as in ``--seeds 3``: what the run has may be another one.
    """
    return frozenset(
        name
        for name, value in arguments.items()
        if not (value is None or value is False or (isinstance(value, Mapping) and not value))
    ) | ({"refit"} if arguments.get("refit") is False else frozenset())


def resumed_settings(
    run: RunFolder,
    given: SomeSettings,
    asked: Collection[str],
    *,
    may_change: Sequence[str],
    extra: Sequence[Plan] = (),
) -> SomeSettings:
    """Return the stored settings with what may change from those given.

    Args:
        run: The run, opened.
        given: Settings of this call.
        asked: Names of those that the caller gave; see :func:`asked_for`.
        may_change: Names of settings that may differ and are taken over where they are asked for; the seconds between checkpoints
            always are.
        extra: Plans that were handed in as records.

    Raises:
        ConfigError: If the caller gave settings that differ from those of the run, naming all of them.
    """
    stored = type(given).from_json(run.state["settings"])
    before, now = (json.loads(json.dumps(settings.to_json(), default=str)) for settings in (stored, given))
    fixed = [key for key in now if key in asked and key not in may_change]
    problems = [
        f"{key.replace('_', '-')}: the run has {before[key]!r}, you gave {now[key]!r}"
        for key in fixed
        if now[key] != before[key]
        and not (key == "source" and _is_same_path(before[key], now[key]))
        # `auto` has become a device when the run began.
        and not (key == "device" and now[key] in ("auto", run.state.get("device", "cpu")))
    ]
    handed = [plan.to_json() for plan in extra]
    if handed and json.loads(json.dumps(handed)) != run.state.get("extra_plans", []):
        problems.append("plans: the run was begun with other plan records than those given")
    if (
        run.state["state"] == "done"
        and "time_limit" in set(asked) & set(may_change)
        and now["time_limit"] != before["time_limit"]
    ):
        problems.append(f"time-limit: the run is finished, with {before['time_limit']!r} seconds; another limit changes nothing")
    if problems:
        raise ConfigError(
            f"The run in {run.path} was begun with other settings. Resume it without them, or begin a new run in another folder.",
            problems,
        )
    taken = {key: getattr(given, key) for key in may_change if key in asked}
    return replace(stored, **{**taken, "checkpoint_seconds": given.checkpoint_seconds})


def _is_same_path(first: str, second: str) -> bool:
    return Path(first).exists() and Path(second).exists() and Path(first).resolve() == Path(second).resolve()


def check_same_data(run: RunFolder, source: Any, options: DataOptions) -> None:
    """Check that data that was named again is what the run has read.

    Args:
        run: The run, opened.
        source: What the caller named.
        options: How the run reads it.

    Raises:
        DataError: If it has changed, naming what did.
    """
    changed = changed_data(run, source, options)
    if changed:
        raise DataError(
            f"The data of the run in {run.path} has changed since it was read: {', '.join(changed[:5])}. Begin a new run in another "
            f"folder with --out; or go on with the data as it was, which the run has kept, with --resume {run.path} alone."
        )


def written_since(run: RunFolder, source: str, options: DataOptions) -> list[str]:
    """Return the names of the files of data that were written to since the run stored what it read; no file is opened."""
    try:
        stored = os.stat(run.suite / "suite.json").st_mtime_ns
    except OSError:
        return []
    found = []
    for file in (source, options.labels):
        with contextlib.suppress(OSError, ValueError):
            if isinstance(file, str) and os.path.isfile(file) and os.stat(file).st_mtime_ns > stored:
                found.append(Path(file).name)
    return found


def changed_data(run: RunFolder, source: Any, options: DataOptions) -> list[str]:
    """Return the names of files (or of the object) that are other ones than the run has read; empty if it has read nothing yet.

    Files that are gone do not count: the run has kept what it needs.
    """
    from graftwork.data.store import is_stored_suite, load_suite

    if not is_stored_suite(run.suite):
        return []
    from graftwork.data.reading.source_hashes import source_hashes

    suite = load_suite(run.suite)
    found = source_hashes(source, options)
    stored = {**suite.sources, "suite": suite.fingerprint()} if "suite" in found else suite.sources
    return [name for name, value in found.items() if stored.get(name) != value]
