"""The rules of ``suite.yaml`` and the search for everything that breaks them, with line numbers from PyYAML's nodes."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.kinds import row_modules
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.options import CLASS_WEIGHTS
from graftwork.data.policies import POLICIES
from graftwork.data.reading.header import read_header
from graftwork.data.reading.sniff import TABLE_FORMATS, check_encoding, check_table_file
from graftwork.data.reading.suite_nodes import Lines, Problem, key_name

__all__ = ["MODALITIES", "check_document"]

MODALITIES = ("table", "text", "image")
"""Kinds of input that a suite file can describe."""
_TOP = ("name", "modality", "mixing", "temperature", "image_size", "seed", "missing", "split_labels", "strict", "datasets")
_DATASET = (
    *("name", "source", "labels", "image_column", "text", "group", "domain"),
    *("features", "categories", "histories", "ignore", "targets", "credit"),
)
_TARGET = ("kind", "metric", "classes", "columns", "class_weight")


class _Checker:
    def __init__(self, path: Path, lines: Lines) -> None:
        self.path, self.lines = path, lines
        self.problems: list[Problem] = []

    def add(self, place: tuple[Any, ...], message: str) -> None:
        # The nearest part of the place that has a line: missing keys have none.
        line = next(self.lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in self.lines)
        self.problems.append(Problem(self.path.name, line, key_name(place), message))

    def keys(self, value: Any, place: tuple[Any, ...], allowed: tuple[str, ...], required: tuple[str, ...] = ()) -> bool:
        if not isinstance(value, Mapping):
            self.add(place, f"must be a mapping with the keys {', '.join(allowed)}; got {_shown(value)}.")
            return False
        for key in value:
            if key not in allowed:
                self.add(
                    (*place, str(key)),
                    f"unknown key {str(key)!r}.{did_you_mean(str(key), allowed)} Allowed are {', '.join(allowed)}.",
                )
        for key in required:
            if key not in value:
                self.add(place, f"the key {key!r} is missing. Add it.")
        return True

    def choice(self, value: Any, place: tuple[Any, ...], allowed: tuple[object, ...]) -> None:
        if value not in allowed:
            names = [str(item).lower() if isinstance(item, bool) else str(item) for item in allowed]
            self.add(place, f"must be one of {', '.join(names)}; got {_shown(value)}.{did_you_mean(str(value), names)}")

    def number(self, value: Any, place: tuple[Any, ...], low: float, high: float, *, whole: bool = False) -> None:
        # ``True`` is an integer to isinstance.
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
            self.add(place, f"must be a {'whole ' if whole else ''}number from {low:g} to {high:g}; got {_shown(value)}.")

    def texts(self, value: Any, place: tuple[Any, ...]) -> list[str]:
        items = value if isinstance(value, list) else [value]
        if not items or any(isinstance(item, (list, Mapping)) or item is None for item in items):
            self.add(place, f"must be a name or a list of names; got {_shown(value)}.")
            return []
        return [str(item) for item in items]


_SHORT = reprlib.Repr()
_SHORT.maxlevel = _SHORT.maxlist = _SHORT.maxdict = 3


def _shown(value: Any) -> str:
    return "nothing" if value is None else _SHORT.repr(value)


def check_document(path: Path, value: Any, lines: Lines, *, needs_targets: bool = True) -> list[Problem]:
    """Return every problem of a suite file's value; that no data set has a target is one if there must be any."""
    check = _Checker(path, lines)
    if not check.keys(value, (), _TOP, ("datasets",)):
        return check.problems
    if "modality" in value:
        asked = value["modality"] if isinstance(value["modality"], list) else [value["modality"]]
        if not asked:
            check.add(("modality",), f"must name at least one of {', '.join(MODALITIES)}; got an empty list.")
        for item in asked:
            check.choice(item, ("modality",), MODALITIES)
    mixing = value.get("mixing", "proportional")
    if isinstance(mixing, (int, float)) and not isinstance(mixing, bool):
        check.number(mixing, ("mixing",), 1, 1000)
    else:
        check.choice(mixing, ("mixing",), POLICIES)
    rules: dict[str, Callable[[Any, tuple[Any, ...]], object]] = {
        "temperature": lambda item, place: check.number(item, place, 1, 1000),
        "image_size": lambda item, place: check.number(item, place, 8, 1024, whole=True),
        "seed": lambda item, place: check.number(item, place, 0, 2**31, whole=True),
        "name": check.texts,
        "missing": check.texts,
        "split_labels": check.texts,
        "strict": lambda item, place: check.choice(item, place, (True, False)),
    }
    for key, rule in rules.items():
        if key in value:
            rule(value[key], (key,))
    if "temperature" in value and mixing != "temperature":
        check.add(
            ("temperature",), f"is used only with mixing: temperature; mixing is {_shown(mixing)}. Change mixing, or remove it."
        )
    datasets = value.get("datasets")
    if "datasets" in value:
        if not isinstance(datasets, list) or not datasets:
            check.add(("datasets",), f"must be a list with at least one data set; got {_shown(datasets)}.")
        else:
            for index, entry in enumerate(datasets):
                _check_dataset(check, entry, ("datasets", index))
            _check_names(check, datasets)
            _check_shared_targets(check, datasets)
            if needs_targets and all(isinstance(entry, Mapping) and entry.get("targets") == {} for entry in datasets):
                check.add(
                    ("datasets", 0, "targets"),
                    "must name at least one target in one of the data sets; got nothing. Data without any labels is for graftwork distill "
                    "--targets none.",
                )
    return sorted(check.problems, key=lambda problem: problem.line)


def _check_dataset(check: _Checker, entry: Any, place: tuple[Any, ...]) -> None:
    if not check.keys(entry, place, _DATASET, ("source", "targets")):
        return
    columns: list[str] | None = None
    for key in ("source", "labels"):
        if entry.get(key) is not None:
            found = _check_file(check, entry[key], (*place, key), folder_allowed=key == "source")
            # Labels have the columns; without them the source has.
            columns = found if found is not None and (key == "labels" or "labels" not in entry) else columns
    for key in ("text", "features", "categories", "ignore"):
        if entry.get(key) is not None:
            _check_columns(check, check.texts(entry[key], (*place, key)), columns, (*place, key))
    if entry.get("histories") is not None:
        _check_histories(check, entry["histories"], columns, (*place, "histories"))
    for key in ("group", "image_column"):
        if entry.get(key) is not None:
            named = check.texts(entry[key], (*place, key))[:1]
            # `group: none` splits by rows.
            _check_columns(check, [] if key == "group" and named == ["none"] else named, columns, (*place, key))
    for key in ("name", "domain", "credit"):
        if key in entry:
            check.texts(entry[key], (*place, key))
    targets = entry.get("targets")
    if isinstance(targets, Mapping) and targets:
        for name, settings in targets.items():
            _check_target(check, str(name), settings, columns, (*place, "targets", str(name)))
    elif "targets" in entry:
        for name in check.texts(targets, (*place, "targets")) if not isinstance(targets, Mapping) else []:
            _check_target(check, name, None, columns, (*place, "targets"))


def _check_kind(check: _Checker, value: Any, place: tuple[Any, ...]) -> None:
    """Check the name of a task kind. Kinds need NumPy, so they are imported only to say what is allowed, or for names without a
    module."""
    if value in row_modules():
        return
    from graftwork.interfaces.task_kind import column_kinds

    check.choice(value, place, column_kinds())


def _check_target(check: _Checker, name: str, settings: Any, columns: list[str] | None, place: tuple[Any, ...]) -> None:
    if isinstance(settings, str):
        _check_kind(check, settings, place)
        settings = None
    if settings is not None and not check.keys(settings, place, _TARGET):
        return
    settings = settings or {}
    if "kind" in settings:
        _check_kind(check, settings["kind"], (*place, "kind"))
    for key in ("classes", "metric", "columns"):
        if key in settings:
            check.texts(settings[key], (*place, key))
    if settings.get("class_weight", CLASS_WEIGHTS[0]) not in CLASS_WEIGHTS:
        check.add((*place, "class_weight"), f"must be {' or '.join(CLASS_WEIGHTS)}; got {_shown(settings['class_weight'])}.")
    wanted = settings.get("columns") or (name.partition("=")[2].split("+") if "=" in name else [name])
    _check_columns(check, [str(item).strip() for item in (wanted if isinstance(wanted, list) else [wanted])], columns, place)


def _check_histories(check: _Checker, value: Any, columns: list[str] | None, place: tuple[Any, ...]) -> None:
    if not isinstance(value, Mapping):
        check.add(
            place, f"must be a mapping from history columns to the item column, as in {{clicked: item}}; got {_shown(value)}."
        )
        return
    first = next(iter(value.values()), None)
    for name, item in value.items():
        if isinstance(item, (list, Mapping)) or item is None:
            check.add((*place, str(name)), f"must name the item column; got {_shown(item)}.")
            continue
        _check_columns(check, list(dict.fromkeys([str(name), str(item)])), columns, (*place, str(name)))
        # All items are compared with the first: a model looks histories up with one item.
        if item != first:
            check.add((*place, str(name)), f"all histories belong to one item column; got {_shown(item)} after {_shown(first)}.")


def _check_columns(check: _Checker, names: list[str], columns: list[str] | None, place: tuple[Any, ...]) -> None:
    # Only text tables are opened for a check; the columns of others are not known yet.
    if columns is None:
        return
    for name in names:
        if name not in columns:
            check.add(
                place,
                f"the data set has no column {name!r}.{did_you_mean(name, columns)} Its columns are {short_list(columns, 20)}.",
            )


def _check_file(check: _Checker, value: Any, place: tuple[Any, ...], *, folder_allowed: bool) -> list[str] | None:
    """Check a path; return the columns of a CSV or TSV table, None if they are not known."""
    if not isinstance(value, str):
        check.add(place, f"must be a path; got {_shown(value)}.")
        return None
    path = check.path.parent / value
    # os.path.exists: Path.exists raises for a name that is too long.
    if not os.path.exists(path):
        near = did_you_mean(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ""
        check.add(place, f"{value!r} does not exist beside {check.path.name}.{near}")
        return None
    if path.is_dir():
        if not folder_allowed:
            check.add(place, f"{value!r} is a folder; give a table ({', '.join(TABLE_FORMATS)}).")
        return None
    try:
        kind = check_table_file(path)
        if kind in ("csv", "tsv"):
            check_encoding(path)
            return read_header(path)
    except FileFormatError as error:
        check.add(place, str(error))
    return None


def _check_names(check: _Checker, datasets: list[Any]) -> None:
    seen: dict[str, int] = {}
    for index, entry in enumerate(datasets):
        if isinstance(entry, Mapping) and "source" in entry:
            name = str(entry.get("name", Path(str(entry["source"])).stem))
            if name in seen:
                check.add(
                    ("datasets", index, "name"),
                    f"two data sets are called {name!r} (datasets[{seen[name]}] too); give each its own name.",
                )
            seen.setdefault(name, index)


def _check_shared_targets(check: _Checker, datasets: list[Any]) -> None:
    """A target name that occurs twice is one shared head, so its settings must agree."""
    first: dict[tuple[str, str], tuple[int, Any]] = {}
    for index, entry in enumerate(datasets):
        targets = entry.get("targets") if isinstance(entry, Mapping) else None
        if not isinstance(targets, Mapping):
            continue
        for name, settings in targets.items():
            settings = {"kind": settings} if isinstance(settings, str) else settings
            for key in ("kind", "metric", "classes", "class_weight"):
                if not isinstance(settings, Mapping) or key not in settings:
                    continue
                # What is not set in one data set cannot contradict another.
                other = first.setdefault((str(name), key), (index, settings[key]))
                if other[1] != settings[key]:
                    check.add(
                        ("datasets", index, "targets", str(name), key),
                        f"is {_shown(settings[key])} here but {_shown(other[1])} in datasets[{other[0]}]; a "
                        f"target of one name is one head. Make them equal, or rename one.",
                    )
