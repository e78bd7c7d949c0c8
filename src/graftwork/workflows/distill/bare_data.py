"""Data that has no labels at all as a suite without tasks: inputs, splits and groups are found as for any other data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.options import DataOptions
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

    from graftwork.data.reading.suite_build import Read
    from graftwork.data.reading.suite_yaml import DatasetEntry, SuiteFile

__all__ = ["NO_TARGETS", "asks_for_none", "open_bare"]

NO_TARGETS = "none"
"""What is asked for as targets where there are none."""
_STAND_IN = "(no target)"
"""A column of random marks that stands in while the data is read: rows are divided, and nothing can be learned of it."""


def asks_for_none(source: Any, options: DataOptions) -> bool:
    """Return whether a user says that the data has no targets; a column called ``none`` is a column."""
    if isinstance(source, Suite):
        return not source.tasks or options.targets == (NO_TARGETS,)
    if options.targets != (NO_TARGETS,):
        return False
    if isinstance(source, str | Path):
        return not os.path.isfile(source) or NO_TARGETS not in _columns(Path(source))
    return NO_TARGETS not in map(str, source.columns)


def _columns(path: Path) -> list[str]:
    if path.suffix.lower() in (".yaml", ".yml"):
        return []
    from graftwork.data.reading.readers import read_table

    return [str(name) for name in read_table(path).columns]


def open_bare(source: Any, options: DataOptions, *, seed: int = 0) -> Suite:
    """Open data without labels.

    Args:
        source: A table file, a folder of pictures or texts in a table, a ``suite.yaml``, a DataFrame, a suite, a stored suite, or the
            name of an embedded one; labels of suites are put away.
        options: How it is read; what is said about targets does not count.
        seed: Divides the rows.

    Raises:
        ConfigError: If labels are given besides.
        GraftworkError: If the data cannot be read.
    """
    from graftwork.data.reading.ingest import open_data
    from graftwork.data.reading.source_hashes import source_hashes
    from graftwork.data.store import is_stored_suite

    if options.labels is not None:
        raise ConfigError("Data without targets has no labels: leave --labels out, or --targets none.")
    plain = replace(options, targets=None, metrics={}, class_weights={}, task_kinds={}, split_labels=None)
    is_path = isinstance(source, str | Path)
    path = Path(source) if is_path else Path()
    if isinstance(source, Suite) or (is_path and (not path.exists() or is_stored_suite(path))):
        return _without_tasks(open_data(source, plain, seed=seed))
    if is_path and path.suffix.lower() in (".yaml", ".yml"):
        return replace(_without_tasks(_suite_of_file(path, plain, seed)), sources=source_hashes(source, plain))
    marked = replace(plain, targets=(_STAND_IN,))
    if is_path and path.is_dir():
        suite = open_data(path, replace(marked, labels=_marked_pictures(path, seed)), seed=seed)
    else:
        frame = _absolute_pictures(_table(path), plain, path.parent) if is_path else source
        suite = open_data(_marked(frame, seed), marked, seed=seed, name=path.stem if is_path else None)
    return replace(_without_tasks(suite), sources=source_hashes(source, plain))


def _suite_of_file(path: Path, options: DataOptions, seed: int) -> Suite:
    """Open a ``suite.yaml``: as it is if it has targets, else with the stand-in in all its data sets."""
    from graftwork.data.reading.ingest import open_data, refuse_options
    from graftwork.data.reading.suite_build import build_suite
    from graftwork.data.reading.suite_yaml import TargetEntry, read_suite_yaml

    file = read_suite_yaml(path, needs_targets=False)
    if any(entry.targets for entry in file.datasets):
        return open_data(path, options, seed=seed)
    refuse_options(path.name, options.given())
    seed, target = seed if file.seed is None else file.seed, TargetEntry(name=_STAND_IN, columns=(_STAND_IN,))
    sizes: dict[str, int] = {}

    def marked(entry: DatasetEntry, file: SuiteFile) -> Read:
        found = _read_marked(entry, file, seed)
        sizes[entry.name] = len(found[0])
        return found

    datasets = tuple(replace(entry, targets=(target,)) for entry in file.datasets)
    suite = build_suite(replace(file, datasets=datasets, seed=seed), marked)
    note = f"Data sets: {', '.join(f'{name} ({rows} rows)' for name, rows in sizes.items())}."
    return replace(suite, notes=(*suite.notes, note))


def _read_marked(entry: DatasetEntry, file: SuiteFile, seed: int) -> Read:
    from graftwork.data.reading.image_folder import label_pictures
    from graftwork.data.reading.suite_build import read_entry

    needed = (entry.features, entry.text, entry.categories, entry.histories, entry.group not in (None, "none"))
    if entry.source.is_dir() and not any(needed):
        # Of a table of labels nothing would be read but the labels, and there may be none.
        pictures = label_pictures(entry.source, _marked_pictures(entry.source, seed))
        return pictures.frame, pictures.images, pictures.sources, []
    frame, images, sources, notes = read_entry(entry, file)
    return _marked(frame, seed), images, sources, notes


def _table(path: Path) -> pd.DataFrame:
    from graftwork.data.reading.readers import read_table

    return read_table(path)


def _marks(rows: int, seed: int) -> list[str]:
    return [("one", "other")[mark] for mark in np.random.default_rng([seed, 11]).permutation(np.arange(rows) % 2).tolist()]


def _marked(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    if not hasattr(frame, "columns"):
        raise DataError(f"A suite is opened from a path, a DataFrame, a Suite or a name; got {type(frame).__name__}.")
    frame = frame.reset_index(drop=True)
    return frame.assign(**{_STAND_IN: _marks(len(frame), seed)})


def _marked_pictures(folder: Path, seed: int) -> pd.DataFrame:
    import pandas as pd

    from graftwork.data.encoders.picture_files import list_images

    names = [image.relative_to(folder).as_posix() for image in list_images(folder)]
    return pd.DataFrame({"file": names, _STAND_IN: _marks(len(names), seed)})


def _absolute_pictures(frame: pd.DataFrame, options: DataOptions, folder: Path) -> pd.DataFrame:
    """Return a table whose pictures are found without its folder."""
    columns = [name for name in options.image_columns(frame.columns) if name in frame.columns]
    paths = {name: [str(folder / cell) if isinstance(cell, str) else cell for cell in frame[name]] for name in columns}
    return frame.assign(**paths) if paths else frame


def _without_tasks(suite: Suite) -> Suite:
    raw = dict(suite.raw)
    raw |= {key: {} for key in ("reasons",) if key in raw}
    for key in ("frame", "columns"):
        if isinstance(raw.get(key), dict):
            raw[key] = {name: value for name, value in raw[key].items() if name != _STAND_IN}
    # Notes about targets: of the stand-in, and that there is only one of it.
    notes = tuple(note for note in suite.notes if _STAND_IN not in note and not note.startswith("There is one target"))
    return replace(suite, tasks=(), targets={}, raw=raw, notes=notes)
