"""Columns of a table whose cells name picture files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import DataError
from graftwork.data.names import short_list
from graftwork.data.reading.cells import as_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SKIPPED_SHARE", "picture_paths", "with_picture_paths"]

SKIPPED_SHARE = 0.01
"""Share of the rows with a picture that training skips at the most, since their files are missing or cannot be read."""


def picture_paths(column: pd.Series, folder: Path, *, strict: bool = True) -> list[Path | None]:
    """Return the file of each row; None where the cell is empty.

    Args:
        column: Cells with paths, relative to ``folder`` or absolute.
        folder: Folder of the table.
        strict: Whether every file must be there. If not, files of up to one in a hundred rows may be missing; their paths are
            returned like the others, and whoever reads them finds out.

    Raises:
        DataError: If no cell names a file, or files are missing; the message counts and names them.
    """
    cells = [(as_text(cell) or "").strip() for cell in column.tolist()]
    # An absolute path replaces the folder.
    paths = [folder / cell if cell else None for cell in cells]
    named = [path for path in paths if path is not None]
    gone = [str(path) for path in named if not os.path.isfile(path)]  # unlike Path.is_file, no name is too long for it
    absent = sorted(set(gone))
    if len(gone) > (0 if strict else int(SKIPPED_SHARE * len(named))):
        raise DataError(
            f"Column {str(column.name)!r} names {len(absent)} picture files that do not exist: {short_list(absent, 5)}. "
            f"Paths are relative to the folder of the table ({folder.resolve()}). Add the files, or empty these cells."
        )
    if not named:
        raise DataError(f"Column {str(column.name)!r} is to name picture files, but all its cells are empty.")
    return paths


def with_picture_paths(frame: pd.DataFrame, columns: Sequence[str], folder: Path) -> pd.DataFrame:
    """Return the table with paths in place of the names in its picture columns; a column that it lacks is left to the encoder.

    Cells may hold the bytes of a picture, too.
    """
    known = [name for name in columns if name in frame.columns]
    if not known:
        return frame
    changed: dict[str, Any] = {name: frame[name] for name in map(str, frame.columns)}
    for name in known:
        # The same classes as those given: a DataFrame stays one, and pandas need not be imported.
        changed[name] = type(frame[name])(_files(frame[name], folder), index=frame.index, dtype=object)
    made = type(frame)(changed)
    made.attrs = dict(frame.attrs)
    return made


def _files(column: pd.Series, folder: Path) -> list[Path | bytes | None]:
    cells = column.tolist()
    is_bytes = [isinstance(cell, bytes) for cell in cells]
    # Bytes only where all cells are bytes or empty: a mixture has no one meaning.
    if any(is_bytes) and all(fine or as_text(cell) is None for fine, cell in zip(is_bytes, cells, strict=True)):
        return [cell if fine else None for fine, cell in zip(is_bytes, cells, strict=True)]
    if all(as_text(cell) is None for cell in cells):  # one row to predict may have no picture
        return [None] * len(cells)
    return list(picture_paths(column, folder))
