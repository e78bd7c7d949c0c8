"""A folder of pictures with a table of labels (or with one sub-folder per class) as a suite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.core.errors import DataError
from graftwork.core.files import hash_file
from graftwork.core.optional import require
from graftwork.data.encoders.columns import as_text
from graftwork.data.encoders.image import list_images
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.reading.assemble import RawSuite, assemble_suite
from graftwork.data.reading.infer import parse_targets
from graftwork.data.reading.readers import check_columns, read_table
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["hash_pictures", "label_pictures", "open_image_folder"]

_LABEL_FILES = ("labels.csv", "labels.tsv", "labels.parquet", "labels.jsonl", "metadata.csv", "metadata.jsonl")
_TOLERATED = 0.05


def open_image_folder(
    folder: Path,
    *,
    targets: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None,
    labels: str | Path | pd.DataFrame | None,
    group: str | None,
    task_kinds: Mapping[str, str],
    image_size: int | None,
    seed: int,
    name: str,
) -> Suite:
    """Open a folder of pictures; see :func:`graftwork.data.reading.ingest.open_suite` for the arguments.

    Raises:
        DataError: If there are no pictures, no labels, or the labels name other files.
    """
    frame, images, sources, notes, file_column = label_pictures(folder, labels)
    columns = [column for column in frame.columns if column != file_column]
    if targets is None:
        targets = [column for column in columns if column != group]
    requests = parse_targets(targets, columns)
    return assemble_suite(
        RawSuite(
            name=name,
            frame=frame,
            requests=requests,
            modality="image",
            task_kinds=task_kinds,
            images=images,
            image_size=image_size,
            features=[column for column in columns if column not in {part for request in requests for part in request.columns}],
            group=group,
            labels=[image.relative_to(folder).as_posix() for image in images],
            sources=sources,
            notes=notes,
            seed=seed,
        )
    )


def label_pictures(
    folder: Path, labels: str | Path | pd.DataFrame | None
) -> tuple[pd.DataFrame, list[Path], dict[str, str], list[str], str]:
    """Match pictures and labels.

    Returns:
        The labels of each picture (missing where there are none), the picture files, hashes of all sources, notes, and the name of
        the column that names the files.
    """
    pandas = require("pandas", extra="data", purpose="Reading labels")
    images = list_images(folder)
    sources = {f"{folder.name} ({len(images)} pictures)": hash_pictures(folder, images)}
    notes: list[str] = []
    if labels is None:
        labels = next((folder / file for file in _LABEL_FILES if (folder / file).is_file()), None)
        if labels is None:
            return _labels_from_folders(folder, images), images, sources, notes, "file"
        notes.append(f"Labels are read from {Path(labels).name} inside the folder.")
    if isinstance(labels, (str, Path)):
        sources[Path(labels).name] = hash_file(labels) if Path(labels).is_file() else ""
        table, where = read_table(labels), str(labels)
    else:
        check_columns(labels.columns, "labels")
        table, where = labels.reset_index(drop=True), "labels"
    keys = _picture_keys(folder, images)
    column = _file_column(table, keys, where)
    texts = [(as_text(value) or "").replace("\\", "/").removeprefix("./") for value in table[column].tolist()]
    doubled = sorted({text for text in texts if text and texts.count(text) > 1}) if len(set(texts)) < len(texts) else []
    if doubled:
        raise DataError(
            f"{where}: column {column!r} names pictures more than once: {short_list(doubled, 5)}. Keep one row per picture."
        )
    place = {keys[text]: row for row, text in enumerate(texts) if text in keys}
    absent = [text for text in texts if text not in keys]
    if len(absent) > max(1.0, _TOLERATED * len(texts)):
        raise DataError(
            f"{where}: {len(absent)} of {len(texts)} files named in column {column!r} are not in {folder}: {short_list(absent, 5)}."
            f"{did_you_mean(absent[0], keys)} Add the pictures, or remove these rows."
        )
    if absent:
        notes.append(f"Labels of {len(absent)} pictures that are not in the folder are left out: {short_list(absent, 5)}.")
    if len(place) < len(images):
        notes.append(
            f"{len(images) - len(place)} of {len(images)} pictures have no row in the labels; they are kept as unlabelled."
        )
    rows = [place.get(index, -1) for index in range(len(images))]
    frame = table.reindex(pandas.Index(rows)).reset_index(drop=True)
    for name in table.columns:  # a whole column of integers or booleans stays one if no label is missing
        if -1 not in rows:
            frame[name] = frame[name].astype(table[name].dtype)
    return frame, images, sources, notes, column


def hash_pictures(folder: Path, images: Sequence[Path]) -> str:
    """Return a SHA-256 over relative names and contents of all pictures."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.relative_to(folder).as_posix()}\0{hash_file(image)}\n".encode())
    return digest.hexdigest()


def _picture_keys(folder: Path, images: Sequence[Path]) -> dict[str, int]:
    """Return every name by which labels may call a picture: relative path, path with the folder, file name, stem (if unambiguous)."""
    keys: dict[str, int] = {}
    unclear: set[str] = set()
    for index, image in enumerate(images):
        relative = image.relative_to(folder).as_posix()
        for key in {image.name, image.stem, relative.rsplit(".", 1)[0]}:
            if keys.setdefault(key, index) != index:
                unclear.add(key)
    for key in unclear:
        del keys[key]
    for index, image in enumerate(images):
        relative = image.relative_to(folder).as_posix()
        keys |= {relative: index, f"{folder.name}/{relative}": index, image.as_posix(): index}
    return keys


def _file_column(table: pd.DataFrame, keys: Mapping[str, int], where: str) -> str:
    """Return the column whose cells match most picture names.

    Raises:
        DataError: If none matches.
    """
    best, best_share = "", 0.0
    for name in map(str, table.columns):
        texts = [as_text(value) for value in table[name].tolist()[:2000]]
        known = [text.replace("\\", "/").removeprefix("./") for text in texts if text is not None]
        share = sum(text in keys for text in known) / max(len(known), 1)
        if share > best_share:
            best, best_share = name, share
    if best_share == 0.0:
        raise DataError(
            f"{where}: no column names the pictures. Cells must be file names such as {next(iter(keys))!r}; the columns are {short_list(table.columns)}. "
            "Add a column with the file names."
        )
    return best


def _labels_from_folders(folder: Path, images: Sequence[Path]) -> pd.DataFrame:
    pandas = require("pandas", extra="data", purpose="Reading labels")
    parents = [image.parent.relative_to(folder).as_posix() for image in images]
    if len(set(parents)) < 2 or "." in parents:
        raise DataError(
            f"{folder} holds {len(images)} pictures but no labels. Give a table with one row per picture (--labels labels.csv), or put the pictures of "
            "each class into a sub-folder named after it."
        )
    return pandas.DataFrame({"file": [image.relative_to(folder).as_posix() for image in images], "category": parents})
