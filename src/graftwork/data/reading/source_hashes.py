"""Hashes of data as suites note them, without reading the data into a suite: has a file changed since?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from graftwork.core.errors import GraftworkError
from graftwork.core.files import hash_file
from graftwork.data.options import DataOptions
from graftwork.data.reading.frame_hash import hash_frame
from graftwork.data.reading.missing_words import without_words
from graftwork.data.reading.nested import flatten_records
from graftwork.data.store import is_stored_suite
from graftwork.data.suite import Suite

__all__ = ["source_hashes"]


def source_hashes(source: Any, options: DataOptions, *, pictures: bool = True) -> dict[str, str]:
    """Return ``{name: SHA-256}`` of what :func:`graftwork.data.reading.ingest.open_data` would read, by the names in
    ``Suite.sources``; of a suite its fingerprint, as ``suite``.

    Args:
        source: As ``open_data`` takes it. Embedded suites, and what is not there, have no hashes here.
        options: As ``open_data`` takes them.
        pictures: Whether folders of pictures are hashed, too. Pictures that a table names never are.
    """
    if isinstance(source, Suite):
        from graftwork.data.reading.ingest import open_data

        return {"suite": open_data(source, options).fingerprint()}
    if not isinstance(source, str | Path):
        frame = source.reset_index(drop=True)
        frame.columns = [str(column) for column in frame.columns]
        return {"DataFrame": hash_frame(without_words(flatten_records(frame), options.missing or ()))}
    path = Path(source)
    if path.suffix.lower() in (".yaml", ".yml") and os.path.isfile(path):
        return {path.name: hash_file(path), **_of_entries(path, pictures)}
    if os.path.isfile(path):
        return {path.name: hash_file(path)}
    # A stored suite notes the files that it was read from, not its own.
    if not os.path.isdir(path) or is_stored_suite(path):
        return {}
    return _of_pictures(path, options.labels, pictures)


def _of_pictures(folder: Path, labels: Any, pictures: bool) -> dict[str, str]:
    from graftwork.data.encoders.picture_files import list_images
    from graftwork.data.reading.image_folder import hash_pictures

    found = {}
    if pictures:
        images = list_images(folder)
        found[f"{folder.name} ({len(images)} pictures)"] = hash_pictures(folder, images)
    if isinstance(labels, str | Path) and Path(labels).is_file():
        found[Path(labels).name] = hash_file(labels)
    return found


def _of_entries(path: Path, pictures: bool) -> dict[str, str]:
    from graftwork.data.reading.suite_yaml import read_suite_yaml

    try:
        entries = read_suite_yaml(path, needs_targets=False).datasets
    except GraftworkError:  # its own hash says that it has changed
        return {}
    found: dict[str, str] = {}
    for entry in entries:
        if entry.source.is_dir():
            parts = _of_pictures(entry.source, entry.labels, pictures)
        else:
            parts = {entry.source.name: hash_file(entry.source)} if entry.source.is_file() else {}
        found |= {f"{entry.name}: {name}": value for name, value in parts.items()}
    return found
