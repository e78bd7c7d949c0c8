"""A folder of pictures with a table of labels (or with one sub-folder per class) as a suite."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.files import hash_file
from graftwork.core.optional import require
from graftwork.data.encoders.picture_files import list_images, unread_note
from graftwork.data.names import did_you_mean, short_list
from graftwork.data.options import DataOptions
from graftwork.data.reading.assemble import RawSuite, assemble_suite
from graftwork.data.reading.infer import parse_targets
from graftwork.data.reading.missing_words import without_words
from graftwork.data.reading.picture_column import PictureColumn, choose_picture_column
from graftwork.data.reading.picture_names import PictureNames
from graftwork.data.reading.readers import check_columns, read_table
from graftwork.data.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LabelledPictures", "hash_pictures", "label_pictures", "open_image_folder"]

_LABEL_FILES = ("labels.csv", "labels.tsv", "labels.parquet", "labels.jsonl", "metadata.csv", "metadata.jsonl")
_TOLERATED = 0.05


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """Pictures of a folder and what is known about them."""

    frame: pd.DataFrame
    """One row per picture; missing values where there is no label."""
    images: list[Path]
    sources: dict[str, str]
    """Hashes of pictures and label file, by name."""
    notes: list[str]
    columns: tuple[str, ...]
    """The column of ``frame`` that names the pictures, and others that name the same ones: no labels, unless the user says so."""


def open_image_folder(
    folder: Path,
    options: DataOptions,
    *,
    seed: int,
    name: str,
) -> Suite:
    """Open a folder of pictures; see :func:`graftwork.data.reading.ingest.open_suite` for the options.

    Raises:
        DataError: If there are no pictures, no labels, or the labels name other files.
    """
    found = label_pictures(folder, options.labels, _one_column(options))
    frame, images = without_words(found.frame, options.missing or ()), found.images
    columns = [column for column in frame.columns if column != found.columns[0]]
    targets = options.targets
    if targets is None:
        targets = tuple(column for column in columns if column not in (options.group, *found.columns))
    requests = parse_targets(targets, columns)
    return assemble_suite(
        RawSuite(
            name=name,
            frame=frame,
            requests=requests,
            options=options,
            images={"": images},
            features=(),
            labels=[image.relative_to(folder).as_posix() for image in images],
            sources=found.sources,
            notes=found.notes,
            seed=seed,
        )
    )


def _one_column(options: DataOptions) -> str | None:
    """Return the column of the labels that names the pictures.

    Raises:
        DataError: If several are named.
    """
    named = options.image_column
    if named is None or isinstance(named, str):
        return named
    if len(named) != 1:
        raise DataError(
            f"--image-column names {short_list(named)}, but the pictures of a folder have one column of names. Name one."
        )
    return named[0]


def label_pictures(folder: Path, labels: str | Path | pd.DataFrame | None, image_column: str | None = None) -> LabelledPictures:
    """Match pictures and labels.

    Args:
        folder: Folder of the pictures.
        labels: Table with one row per picture; None takes a file of the usual names inside the folder, or the names of
            sub-folders.
        image_column: Column that names the pictures; None chooses.

    Raises:
        DataError: If there are no pictures or no labels, if it is not certain which picture a row means, or if many of the files
            named are missing.
    """
    pandas = require("pandas", extra="data", purpose="Reading labels")
    images = list_images(folder)
    sources = {f"{folder.name} ({len(images)} pictures)": hash_pictures(folder, images)}
    notes = unread_note(folder)
    if labels is None:
        labels = _labels_inside(folder)
        if labels is None:
            if image_column is not None:
                raise DataError(
                    f"--image-column names a column of a label table, but {folder} has none. Add --labels labels.csv."
                )
            return LabelledPictures(_labels_from_folders(folder, images), images, sources, notes, ("file",))
        notes.append(f"Labels are read from {Path(labels).name} inside the folder.")
    if isinstance(labels, (str, Path)):
        sources[Path(labels).name] = hash_file(labels) if Path(labels).is_file() else ""
        table, where = read_table(labels), str(labels)
    else:
        check_columns(labels.columns, "labels")
        table, where = labels.reset_index(drop=True), "labels"
        table.columns = [str(name) for name in table.columns]
    names = PictureNames(folder.resolve().name, [image.relative_to(folder).as_posix() for image in images])
    column = choose_picture_column(table, names, where, image_column)
    pictures = column.pictures
    notes += [column.note(names.relative), *_gap_notes(column, pictures, names, folder, where)]
    # For each picture its row in the table, -1 without one.
    rows = np.full(len(images), -1, dtype=np.int64)
    rows[pictures[pictures >= 0]] = np.flatnonzero(pictures >= 0)
    # Row -1 is in no table, so reindexing fills it with missing values, which turns integers into floats.
    frame = table.reindex(pandas.Index(rows)).reset_index(drop=True)
    if (rows >= 0).all():  # a whole column of integers or booleans stays one if no label is missing
        frame = frame.astype(table.dtypes.to_dict())
    return LabelledPictures(frame, images, sources, notes, (column.name, *column.same))


def _labels_inside(folder: Path) -> Path | None:
    found = next((folder / file for file in _LABEL_FILES if (folder / file).is_file()), None)
    # A folder from elsewhere must not read the user's files through a link.
    if found is not None and not found.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{found} is a link to a file outside of the folder ({found.resolve()}). Name that file with --labels.")
    return found


def _gap_notes(column: PictureColumn, pictures: NDArray[np.int64], names: PictureNames, folder: Path, where: str) -> list[str]:
    """Return notes about rows without a picture and pictures without a row.

    Raises:
        DataError: If more than one row in twenty names a file that is not there.
    """
    total = len(names.relative)
    empty = int((column.codes < 0).sum())
    absent = [column.cells[code] for code in column.codes[(pictures < 0) & (column.codes >= 0)].tolist()]
    # max: a single missing picture of a small set is no reason to stop.
    if len(absent) > max(1.0, _TOLERATED * len(column.codes)):
        raise DataError(
            f"{where}: {len(absent)} of {len(column.codes)} files named in column {column.name!r} are not in {folder}: "
            f"{short_list(absent, 5)}.{did_you_mean(absent[0], names.relative)} Add the pictures, or remove these rows."
        )
    notes = []
    if absent:
        notes.append(f"Labels of {len(absent)} pictures that are not in the folder are left out: {short_list(absent, 5)}.")
    if empty:
        notes.append(f"{empty} rows of {where} name no picture (column {column.name!r} is empty there) and are left out.")
    bare = np.setdiff1d(np.arange(total), pictures)
    if len(bare):
        shown = short_list([names.relative[index] for index in bare.tolist()], 5)
        notes.append(f"{len(bare)} of {total} pictures have no row in the labels and stay without labels: {shown}.")
    return notes


def hash_pictures(folder: Path, images: Sequence[Path]) -> str:
    """Return a SHA-256 over relative names and contents of all pictures. One that cannot be read counts by its name: whoever
    decodes it says what is wrong."""
    digest = hashlib.sha256()
    for image in images:
        try:
            content = hash_file(image)
        except OSError:
            content = ""
        digest.update(f"{image.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _labels_from_folders(folder: Path, images: Sequence[Path]) -> pd.DataFrame:
    pandas = require("pandas", extra="data", purpose="Reading labels")
    parents = [image.parent.relative_to(folder).as_posix() for image in images]
    # With pictures beside the sub-folders, these are no classes.
    if len(set(parents)) < 2 or "." in parents:
        raise DataError(
            f"{folder} holds {len(images)} pictures but no labels. Give a table with one row per picture (--labels "
            "labels.csv), or put the pictures of each class into a sub-folder named after it."
        )
    return pandas.DataFrame({"file": [image.relative_to(folder).as_posix() for image in images], "category": parents})
