"""What can be predicted on, cut into batches: tables, picture folders, lists of texts or files. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.input_kinds import input_kind
from graftwork.core.optional import require
from graftwork.data.encoders.base import Encoder
from graftwork.data.reading.nested import flatten_records
from graftwork.data.reading.picture_cells import with_picture_paths

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RowSource", "open_source"]

_LISTS = ("text", "series")
"""Kinds whose rows may come as a plain list."""


@dataclass(frozen=True, slots=True)
class RowSource:
    """Raw rows that an encoder can turn into inputs, batch by batch."""

    rows: Any
    """A DataFrame, or a list of picture paths, picture bytes or texts."""
    index: pd.Index
    """Name of each row in the answer: the frame's own index, or file names."""

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, size: int) -> Iterator[Any]:
        """Yield slices of at most ``size`` rows."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield self.rows.iloc[part] if hasattr(self.rows, "iloc") else self.rows[part]


def open_source(source: Any, encoder: Encoder) -> RowSource:
    """Return the rows behind ``source``.

    Args:
        source: A path (table file, picture folder, picture file), a DataFrame, or a list of texts, series, picture paths or
            picture bytes.
        encoder: The run's encoder, which says what rows are. Where a column named the pictures, a table with that column will do.

    Raises:
        DataError: If the source does not fit the kind, or holds no rows.
    """
    pandas = require("pandas", extra="predict", purpose="Predicting")
    kind = encoder.kind
    if isinstance(source, RowSource):
        return source
    if kind == "image" and not (encoder.picture_columns and _is_table(source, pandas)):
        found = _pictures(source, pandas)
    elif isinstance(source, pandas.DataFrame):
        # As tables were read in training: records flattened, paths of pictures from the working folder.
        frame = with_picture_paths(flatten_records(source), encoder.picture_columns, Path())
        found = RowSource(frame, frame.index)
    elif isinstance(source, str | Path):
        found = _table(Path(source), encoder, pandas)
    elif kind in _LISTS and isinstance(source, Sequence | np.ndarray):
        found = RowSource(list(source), pandas.RangeIndex(len(source), name="row"))
    else:
        allowed = "a table (path or DataFrame)" + (f", or a list of {input_kind(kind).noun}" if kind in _LISTS else "")
        raise DataError(f"This run predicts from {allowed}; got {type(source).__name__}.")
    if len(found) == 0:
        raise DataError("There are no rows to predict: the source is empty. Give at least one row.")
    return found


def _is_table(source: Any, pandas: Any) -> bool:
    """Return whether a source is a table, which names its pictures in a column."""
    from graftwork.data.reading.sniff import TABLE_FORMATS

    is_file = isinstance(source, str | Path) and Path(source).suffix.lower() in TABLE_FORMATS
    return is_file or isinstance(source, pandas.DataFrame)


def _table(path: Path, encoder: Encoder, pandas: Any) -> RowSource:
    from graftwork.data.reading.readers import read_table

    if path.is_dir():
        raise DataError(
            f"{path} is a folder, but this run was trained on the rows of a table: give a table file (.csv, .parquet, .jsonl)."
        )
    # Paths in a file are relative to the file.
    frame = with_picture_paths(read_table(path), encoder.picture_columns, path.parent)
    return RowSource(frame, pandas.RangeIndex(len(frame), name="row"))


def _pictures(source: Any, pandas: Any) -> RowSource:
    from graftwork.data.encoders.picture_files import IMAGE_ENDINGS, list_images

    if isinstance(source, pandas.DataFrame):
        raise DataError("This run was trained on pictures: give a folder of pictures, or a list of picture files, not a table.")
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            files = list_images(path)
            return RowSource(files, pandas.Index([file.relative_to(path).as_posix() for file in files], name="file"))
        if path.suffix.lower() not in IMAGE_ENDINGS:
            state = "is not a picture" if path.exists() else "does not exist"
            raise DataError(
                f"{path} {state}. This run was trained on pictures: give a folder of pictures or a file "
                f"ending in {', '.join(IMAGE_ENDINGS)}."
            )
        source = [path]
    items = list(source)
    names = [
        item.name if isinstance(item, Path) else Path(item).name if isinstance(item, str) else f"picture {i}"
        for i, item in enumerate(items)
    ]
    # Files of several folders may share a name; rows must still be told apart.
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for name, number in zip(names, itertools.count())]
    return RowSource(items, pandas.Index(names, name="file"))
