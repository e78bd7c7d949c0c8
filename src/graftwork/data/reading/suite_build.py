"""From a checked ``suite.yaml`` to one suite: data sets below each other, shared heads where target names agree, missing labels
elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file, hash_files
from graftwork.core.input_kinds import join_kinds
from graftwork.core.optional import require
from graftwork.data.names import check_names, short_list
from graftwork.data.options import DataOptions
from graftwork.data.reading.assemble import RawSuite, assemble_suite
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.class_weighting import with_class_weights
from graftwork.data.reading.histories import check_histories
from graftwork.data.reading.image_folder import label_pictures
from graftwork.data.reading.infer import TargetRequest
from graftwork.data.reading.missing_words import without_words
from graftwork.data.reading.picture_cells import picture_paths
from graftwork.data.reading.readers import read_table
from graftwork.data.reading.suite_yaml import DatasetEntry, SuiteFile, read_suite_yaml
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Read", "build_suite", "open_suite_yaml", "read_entry"]

Read: TypeAlias = "tuple[pd.DataFrame, Sequence[Path | None], dict[str, str], list[str]]"
"""Columns of a data set, the picture of each row (empty if there are none), hashes by name, and notes."""

_GROUP, _TEXT = "(group)", "(text)"
"""Columns that hold the groups and texts of all data sets."""


def open_suite_yaml(path: str | Path, *, seed: int = 0, name: str | None = None) -> Suite:
    """Open a suite file; see :func:`build_suite`.

    Args:
        path: The YAML file.
        seed: Seed of the splits, unless the file sets one.
        name: Replaces the name in the file.

    Raises:
        ConfigError: With all problems of the file at once.
        DataError: If the data cannot be used.
    """
    file = read_suite_yaml(path)
    return build_suite(replace(file, name=name or file.name, seed=seed if file.seed is None else file.seed))


def read_entry(entry: DatasetEntry, file: SuiteFile) -> Read:
    """Read one data set of a checked file.

    Raises:
        DataError: If it cannot be used.
    """
    try:
        if entry.source.is_dir():
            found = label_pictures(entry.source, entry.labels, entry.image_column)
            return found.frame, found.images, found.sources, found.notes
        frame = read_table(entry.source)
        sources = {entry.source.name: hash_file(entry.source)}
        pictures: list[Path | None] = []
        if "image" in file.kinds and entry.image_column is not None:
            check_names([entry.image_column], map(str, frame.columns), what="image_column", where=entry.source.name)
            pictures = picture_paths(frame[entry.image_column], entry.source.parent, strict=file.strict)
            known = list(dict.fromkeys(path for path in pictures if path is not None and os.path.isfile(path)))
            sources[f"{entry.image_column} ({len(known)} pictures)"] = hash_files(known)
        return frame, pictures, sources, list(frame.attrs["notes"])
    except DataError as error:
        raise type(error)(f"Data set {entry.name!r} of {file.path.name}: {error}") from error


def build_suite(file: SuiteFile, read: Callable[[DatasetEntry, SuiteFile], Read] = read_entry) -> Suite:
    """Build the suite that a checked file describes.

    Rows of all data sets stand below each other. A target name that several data sets have is one task; where a data set lacks a
    task, its labels are missing. Feature columns are the union over data sets, missing where one lacks them; target columns of
    any data set are features of none. ``raw["mixing"]`` holds the mixing policy, ``domain`` the domain of each row.

    Args:
        file: The checked file.
        read: Reads its data sets.

    Raises:
        DataError: If the data cannot be used.
        ConfigError: If the modality does not fit the sources.
    """
    pandas = require("pandas", extra="data", purpose="Reading tables")
    _check_modality(file)
    frames, labels, notes = [], [], []
    images: list[Path | None] = []
    sources: dict[str, str] = {str(file.path.name): hash_file(file.path)}
    domains = list(dict.fromkeys(entry.domain for entry in file.datasets))
    domain = []
    # A column that any data set predicts is a feature of none: it would give the answer away there.
    taken = {column for entry in file.datasets for target in entry.targets for column in target.columns}
    taken |= {
        column
        for entry in file.datasets
        for target in entry.targets
        for column in _target_columns(target.name, len(target.columns))
    }
    for entry in file.datasets:
        frame, pictures, hashes, found = read(entry, file)
        frame = without_words(frame, file.missing or ())
        frames.append(_renamed(frame, entry, file.kinds, taken))
        images += pictures
        sources |= {f"{entry.name}: {key}": value for key, value in hashes.items()}
        notes += [f"{entry.name}: {note}" for note in found]
        is_folder = entry.source.is_dir()
        labels += [
            f"{entry.name} {picture.name}" if is_folder and picture is not None else f"{entry.name} row {row + 1}"
            for row, picture in zip(range(len(frame)), pictures or [None] * len(frame), strict=True)
        ]
        domain.append(np.full(len(frame), domains.index(entry.domain), dtype=np.int64))
    # Columns that a data set lacks are filled with missing cells.
    table = pandas.concat(frames, ignore_index=True)
    requests = _requests(file)
    hidden = {_GROUP, _TEXT, *(column for request in requests for column in request.columns)}
    by_rows = any(entry.group == "none" for entry in file.datasets)
    features = [name for name in map(str, table.columns) if name not in hidden]
    suite = assemble_suite(
        RawSuite(
            name=file.name,
            frame=table,
            requests=requests,
            options=DataOptions(
                image_size=file.image_size,
                missing=file.missing,
                split_labels=file.split_labels,
                strict=file.strict,
                group=_GROUP if _GROUP in table.columns else "none" if by_rows else None,
                # In the order of the table, each once.
                categories=tuple(name for name in table.columns if any(name in entry.categories for entry in file.datasets)),
                histories=_histories(file, features, taken),
            ),
            text=(_TEXT,) if "text" in file.kinds else (),
            images={_picture_column(file): images} if "image" in file.kinds else {},
            features=features,
            alternatives=[frozenset(map(str, frame.columns)) for frame in frames],
            domain=np.concatenate(domain),
            domains=domains,
            labels=labels,
            sources=sources,
            notes=[*notes, *_size_notes(file, frames)],
            raw={"mixing": file.mixing},
            seed=file.seed or 0,
        )
    )
    suite = replace(suite, credits={entry.name: entry.credit for entry in file.datasets if entry.credit})
    asked = {target.name: target.class_weight for entry in file.datasets for target in entry.targets if target.class_weight}
    suite = with_class_weights(suite, asked) if asked else suite
    return _with_text_columns(suite, file) if "text" in file.kinds else suite


def _renamed(frame: pd.DataFrame, entry: DatasetEntry, kinds: Sequence[str], taken: set[str]) -> pd.DataFrame:
    """Return the columns that the suite uses: features under their own names, targets as ``task:part``, group and text in fixed
    columns."""
    where = f"data set {entry.name!r}"
    group = DataOptions(group=entry.group).group_in([str(name) for name in frame.columns])
    wanted = [
        *(column for target in entry.targets for column in target.columns),
        *entry.text,
        *entry.ignore,
        *(entry.features or ()),
        *entry.categories,
        *entry.histories,
        *entry.histories.values(),
    ]
    check_names([*wanted, *([group] if group else [])], map(str, frame.columns), what=f"datasets: {entry.name}", where=where)
    columns: dict[str, Any] = {}
    if "table" in kinds:
        hidden = {*taken, *entry.ignore, *entry.text, group, entry.image_column}
        # Labels of a picture folder have columns of all sorts: only those that are named are learned from.
        named = entry.features if entry.features is not None else () if entry.source.is_dir() else frame.columns
        names = [name for name in map(str, named) if name not in hidden]
        columns |= {name: frame[name] for name in names}
    for target in entry.targets:
        columns |= {
            key: frame[column]
            for key, column in zip(_target_columns(target.name, len(target.columns)), target.columns, strict=True)
        }
    if group is not None:
        # Patient 7 of one data set is not patient 7 of another.
        columns[_GROUP] = [None if text is None else f"{entry.name}/{text}" for text in map(as_text, frame[group].tolist())]
    if "text" in kinds:
        from graftwork.data.encoders.text import join_texts

        columns[_TEXT] = join_texts(frame, entry.text)
    return type(frame)(columns, index=frame.index)


def _target_columns(name: str, number: int) -> list[str]:
    return [name] if number == 1 else [f"{name}:{index + 1}" for index in range(number)]


def _requests(file: SuiteFile) -> list[TargetRequest]:
    """Return one request per target name, with the settings of all data sets that have it."""
    requests: dict[str, TargetRequest] = {}
    for entry in file.datasets:
        for target in entry.targets:
            columns = tuple(_target_columns(target.name, len(target.columns)))
            # Settings may be given in one data set only; the first that has one decides.
            old = requests.get(target.name, TargetRequest(target.name, columns))
            if old.columns != columns:
                raise ConfigError(
                    f"{file.path.name}: target {target.name!r} has {len(columns)} columns in data set {entry.name!r} but "
                    f"{len(old.columns)} elsewhere; a target of one name is one head. Rename one of them."
                )
            requests[target.name] = TargetRequest(
                target.name, columns, target.kind or old.kind, target.classes or old.classes, target.metric or old.metric
            )
    return list(requests.values())


def _check_modality(file: SuiteFile) -> None:
    problems = []
    for entry in file.datasets:
        name = f"data set {entry.name!r}"
        if "image" in file.kinds and not entry.source.is_dir() and entry.image_column is None:
            problems.append(f"{name}: {entry.source.name} is a file, and the key 'image_column' is missing")
        if "image" not in file.kinds and entry.source.is_dir():
            problems.append(f"{name}: {entry.source.name} is a folder of pictures")
        if "text" in file.kinds and not entry.text:
            problems.append(f"{name}: the key 'text' is missing")
        problems += [
            f"{name}: the key {key!r} belongs to modality {kind}"
            for key, value, kind in (
                ("text", entry.text, "text"),
                ("image_column", entry.image_column, "image"),
                ("categories", entry.categories, "table"),
                ("histories", entry.histories, "table"),
            )
            if kind not in file.kinds and value
        ]
    if problems:
        raise ConfigError(
            f"{file.path}: the suite is of modality {join_kinds(file.kinds)}, and all data sets must be. Change modality, or the "
            f"data sets.",
            problems,
        )


def _histories(file: SuiteFile, features: list[str], targets: set[str]) -> dict[str, str]:
    """Return the histories of all data sets; a data set that lacks one of the columns has none there."""
    return check_histories(
        [pair for entry in file.datasets for pair in entry.histories.items()],
        features,
        dict.fromkeys(targets, "a target") | {entry.group: "a group" for entry in file.datasets if entry.group is not None},
        categories={name for entry in file.datasets for name in entry.categories},
        what=f"{file.path.name}, histories",
        where="the features",
    )


def _picture_column(file: SuiteFile) -> str:
    """Return the column that names pictures of new rows; empty if new rows are pictures and nothing else."""
    if file.kinds == ("image",) and all(entry.source.is_dir() for entry in file.datasets):
        return ""
    names = {entry.image_column for entry in file.datasets}
    return next(iter(names)) or "image" if len(names) == 1 else "image"


def _size_notes(file: SuiteFile, frames: list[pd.DataFrame]) -> list[str]:
    sizes = [
        f"{entry.name} ({len(frame)} rows: {short_list(target.name for target in entry.targets) or 'no targets'})"
        for entry, frame in zip(file.datasets, frames, strict=True)
    ]
    policy = file.mixing if isinstance(file.mixing, str) else f"temperature {file.mixing:g}"
    shared = sorted(
        name
        for name in {target.name for entry in file.datasets for target in entry.targets}
        if sum(name in [target.name for target in entry.targets] for entry in file.datasets) > 1
    )
    heads = f" Shared heads: {short_list(shared)}." if shared else ""
    return [f"Data sets: {short_list(sizes)}; mixing {policy}.{heads}"]


def _with_text_columns(suite: Suite, file: SuiteFile) -> Suite:
    """Let the encoder read the text column by the name that all data sets use, if they agree."""
    names = {entry.text for entry in file.datasets}
    # The stored encoder reads new tables, in which the common column `(text)` does not exist.
    columns = list(next(iter(names))) if len(names) == 1 else ["text"]
    spec = suite.input_specs["text"]
    return replace(suite, input_specs={**suite.input_specs, "text": replace(spec, encoder={**spec.encoder, "columns": columns})})
