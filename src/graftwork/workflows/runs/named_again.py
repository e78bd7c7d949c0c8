"""Files that a run's own ``run.json`` names: they are read once the user has named them again, or never, if the run has read them.

A run folder may come from somebody else, and going on with it must not read what that person chose. What has been read is stored in
the run (the suite, the answers of teachers), so most runs go on without a word; one that was stopped before that needs its data
named again, as the command that began it did. A backbone is read at every training: one in a folder of its own is named again as
well, and one of a hub has to be in the cache of this machine.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.files import cache_folder
from graftwork.workflows.runs.run_folder import RunFolder
from graftwork.workflows.runs.settings import FitSettings

__all__ = ["check_named_again"]


@dataclass(frozen=True, slots=True)
class _Missing:
    what: str
    words: tuple[str, ...]
    """Of the command line."""


def check_named_again(
    run: RunFolder, stored: FitSettings, given: FitSettings, *, names_source: bool, names_plans: bool = False
) -> None:
    """Check that this call names the files that a run would go on to read.

    Args:
        run: The run, opened.
        stored: Its settings; what was given again has been found equal to them.
        given: Settings of this call.
        names_source: Whether this call names the data.
        names_plans: Whether this call hands in the run's own plans, as records.

    Raises:
        ConfigError: Naming what is to be given again, and how.
    """
    missing = [*_others(run, stored, given), *_data(run, stored, given, names_source=names_source)]
    # The plans of a distillation are made of what its teachers have said.
    teachers: tuple[str, ...] = getattr(given, "teachers", ())
    if not (names_plans or given.plans is not None or teachers):
        missing += _of_plans(run, stored, _names(given.backbone or ""))
    if missing:
        verb = str(run.state.get("verb", "fit"))
        words = shlex.join([word for part in missing for word in part.words])
        raise ConfigError(
            f"The run in {run.path} would go on to read {', '.join(repr(part.what) for part in missing)}, which only its run.json names, "
            "and a run folder may come from somebody else. If this is what you mean, name it again: "
            f"graftwork {verb} {words} --resume {shlex.quote(str(run.path))}"
        )


def _data(run: RunFolder, stored: FitSettings, given: FitSettings, *, names_source: bool) -> Iterator[_Missing]:
    from graftwork.data.store import is_stored_suite
    from graftwork.data.suites import EMBEDDED

    if is_stored_suite(run.suite):
        return
    # Data that was handed over is asked for in other words.
    if not names_source and stored.source != "<data>" and (stored.source not in EMBEDDED or os.path.exists(stored.source)):
        yield _Missing(stored.source, (stored.source,))
    if isinstance(stored.data.labels, str) and given.data.labels is None:
        yield _Missing(stored.data.labels, ("--labels", stored.data.labels))


def _others(run: RunFolder, stored: FitSettings, given: FitSettings) -> Iterator[_Missing]:
    state = run.state
    files = [name for name in stored.plans or () if name.endswith(".toml")]
    if "plans" not in state and files and given.plans is None:
        yield _Missing(files[0], ("--plans", ",".join(stored.plans or ())))
    if stored.warm_start is not None and "warm_start" not in state and given.warm_start is None:
        yield _Missing(stored.warm_start, ("--warm-start", stored.warm_start))
    backbones = [name for names in (state.get("backbone"), stored.backbone) for name in _names(str(names or ""))]
    if state.get("verb") == "distill":
        # There the student is what is built by its name.
        again = _names(getattr(given, "student", ""))
        flag, backbones = ["--student"], [*_names(getattr(stored, "student", "")), *backbones]
        yield from _teachers(run, stored, given)
    else:
        # `tune` takes it in front of the data.
        flag, again = [] if state.get("verb") == "tune" else ["--backbone"], _names(given.backbone or "")
    foreign = [name for name in dict.fromkeys(backbones) if name not in again and _is_elsewhere(name)]
    if foreign:
        yield _Missing(", ".join(foreign), (*flag, ",".join(foreign)))


def _teachers(run: RunFolder, stored: FitSettings, given: FitSettings) -> Iterator[_Missing]:
    if getattr(given, "teachers", ()):  # found equal to the stored ones
        return
    for number, name in enumerate(getattr(stored, "teachers", ()), 1):
        # Answers that are stored are taken, and the teacher is not looked at again.
        entry = (run.result(f"teacher-{number}") or {}).get("entry")
        is_stored = isinstance(entry, str) and _is_own(entry, run) and os.path.isdir(entry)
        if not is_stored and (os.path.exists(name) or "/" in name or _is_elsewhere(name)):
            yield _Missing(name, ("--teacher", name))


def _of_plans(run: RunFolder, stored: FitSettings, again: Collection[str]) -> Iterator[_Missing]:
    """Yield what components of the stored plans would read: networks of a hub or folder, files of weights."""
    waiting: list[Any] = [run.state.get("plans"), run.state.get("extra_plans")]
    found: dict[str, None] = {}
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value not in again:
            is_network = value.startswith(("hf:", "timm:", "ttm:")) and _is_elsewhere(value)
            if is_network or ((value.endswith(".safetensors") or os.path.isabs(value)) and not _is_own(value, run)):
                found[value] = None
    if not found:
        return
    what = ", ".join(found)
    if teachers := getattr(stored, "teachers", ()):
        yield _Missing(what, tuple(word for name in teachers for word in ("--teacher", name)))
    else:
        yield _Missing(what, ("--plans", ",".join(stored.plans or ("FILE",))))


def _is_own(path: str, run: RunFolder) -> bool:
    """Return whether a file lies in the run, or in this user's cache, where the answers of teachers are."""
    try:
        place = Path(path).resolve()
        return any(place.is_relative_to(folder.resolve()) for folder in (run.path, cache_folder()))
    except (OSError, ValueError):  # no cache, no path at all
        return False


def _names(names: str) -> list[str]:
    from graftwork.nn.backbones.catalog import split_names

    return split_names(names)


def _is_elsewhere(name: str) -> bool:
    """Return whether a backbone would be read from a folder, or asked of a hub."""
    from graftwork.nn.backbones.reach import folder_of, is_cached

    return folder_of(name) is not None or not is_cached(name)
