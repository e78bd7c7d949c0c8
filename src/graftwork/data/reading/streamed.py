"""Large tables in files, read a column at a time: Parquet as it is, text through a file of columns that is written once, in chunks.

A column that is read alone is the column of the whole table, whatever the row groups or chunks: the readers of whole tables make the same
cells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import FileFormatError
from graftwork.core.optional import has, require
from graftwork.data.reading.cells import arrow_to_pandas
from graftwork.data.reading.large_tables import is_large
from graftwork.data.reading.missing_words import without_words

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["StreamedTable", "parquet_faults", "stream_delimited", "stream_parquet"]

_EXTRA = "data"
_BLOCK = 8 << 20
"""Bytes of a text file that are parsed at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedTable:
    """A table whose columns are read when they are asked for, each time anew."""

    columns: Sequence[str]
    num_rows: int
    load: Callable[[str], pd.Series]
    """Reads a column by its name."""
    attrs: dict[str, Any] = field(default_factory=dict)
    """As those of a frame that :func:`~graftwork.data.reading.readers.read_table` returns."""
    missing: Sequence[str] = ()
    """Words that mean a missing cell."""

    def __len__(self) -> int:
        return self.num_rows

    def __getitem__(self, name: str) -> pd.Series:
        cells = self.load(name)
        return without_words(cells.to_frame(name), self.missing)[name] if self.missing else cells

    def without_words(self, words: Sequence[str]) -> StreamedTable:
        """Return the table with empty cells where they hold one of the words."""
        return replace(self, missing=tuple(words))


@contextlib.contextmanager
def parquet_faults(path: Path) -> Iterator[None]:
    """Turn what pyarrow and pandas raise for damaged Parquet files into one error.

    Raises:
        FileFormatError: If the file is not whole.
    """
    arrow = require("pyarrow", extra=_EXTRA, purpose="Reading Parquet")
    try:
        yield
    except FileFormatError:
        raise  # it says already what is wrong
    # Besides pyarrow's own: the description of the index, which pandas keeps as JSON in the file, may be damaged.
    except (arrow.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"{path} is not a whole Parquet file (truncated or damaged): {error!s:.300}. Write it again, or restore it from a copy."
        ) from error


def stream_parquet(path: Path) -> StreamedTable | None:
    """Return a large Parquet file as a table of single columns; None if it has to be read whole.

    That is so if it has few rows, columns of lists or records, or an index that becomes a column.

    Raises:
        FileFormatError: If it is damaged; also when a column is read.
    """
    parquet = require("pyarrow.parquet", extra=_EXTRA, purpose="Reading Parquet")
    with parquet_faults(path):
        with parquet.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
        stored = {str(name).strip(): name for name in schema.names}
        # Whoever reads the whole table says what is wrong with its names.
        is_named = len(stored) == len(schema.names) and all(stored)
        is_plain = is_named and not any(_is_nested(one.type) for one in schema) and not _has_index(schema.pandas_metadata)
    if not is_large(num_rows) or not is_plain:
        return None

    def load(name: str) -> pd.Series:
        with parquet_faults(path), parquet.ParquetFile(path) as file:
            # A name with a point selects parts of records, too.
            frame = arrow_to_pandas(file.read(columns=[stored[name]]).select([stored[name]]))
            cells: pd.Series = frame[stored[name]].reset_index(drop=True).rename(name)
        del frame
        _release()
        return cells

    return StreamedTable(columns=list(stored), num_rows=num_rows, load=load, attrs={"notes": []})


def _release() -> None:
    """Give back what Arrow keeps for its next column."""
    require("pyarrow", extra=_EXTRA, purpose="Reading tables").default_memory_pool().release_unused()


def _is_nested(kind: Any) -> bool:
    types = require("pyarrow", extra=_EXTRA, purpose="Reading Parquet").types
    # Types that somebody else has registered may be anything.
    return bool(types.is_nested(kind)) or hasattr(kind, "extension_name")


def _has_index(described: Any) -> bool:
    """Return whether pandas would make an index of a column, or of a name."""
    return any(not isinstance(one, dict) or one.get("name") is not None for one in (described or {}).get("index_columns", ()))


def stream_delimited(
    path: Path, names: Sequence[str], num_rows: int, delimiter: str, folder: Path, attrs: dict[str, Any]
) -> StreamedTable | None:
    """Write the columns of a delimited text file side by side, in chunks, and return them; None if that fails, and another reader
    has to try.

    Args:
        path: The file, checked.
        names: Column names; the first may be empty, and is left out then.
        num_rows: Rows that the check has counted.
        delimiter: Between fields.
        folder: Where the columns go.
        attrs: Those of the table.
    """
    if not is_large(num_rows) or not has("pyarrow"):
        return None
    arrow = require("pyarrow", extra=_EXTRA, purpose="Reading tables")
    target = folder / "columns.arrow"
    try:
        written = _write_columns(path, len(names), delimiter, target)
    # A row longer than a block, or a full disk.
    except (arrow.ArrowException, OSError):
        written = -1
    if written != num_rows:
        target.unlink(missing_ok=True)
        return None
    place = {name: number for number, name in enumerate(names) if name}

    def load(name: str) -> pd.Series:
        pandas = require("pandas", extra=_EXTRA, purpose="Reading tables")
        with arrow.OSFile(str(target)) as source:
            options = arrow.ipc.IpcReadOptions(included_fields=[place[name]])
            cells = arrow.ipc.open_file(source, options=options).read_all().column(0).to_numpy()
        _release()
        column: pd.Series = pandas.Series(cells, name=name, dtype=object)
        return column

    return StreamedTable(columns=list(place), num_rows=num_rows, load=load, attrs=attrs)


def _write_columns(path: Path, number: int, delimiter: str, target: Path) -> int:
    """Write every field as a text, as it stands; return the number of rows."""
    arrow = require("pyarrow", extra=_EXTRA, purpose="Reading tables")
    text = require("pyarrow.csv", extra=_EXTRA, purpose="Reading tables")
    fields = [str(place) for place in range(number)]
    schema = arrow.schema([(name, arrow.large_string()) for name in fields])
    reader = text.open_csv(
        path,
        read_options=text.ReadOptions(column_names=fields, block_size=_BLOCK),
        parse_options=text.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=text.ConvertOptions(column_types=schema, strings_can_be_null=False),
    )
    # The header is a row to a reader that is told the names.
    rows, skipped = 0, 1
    with reader, arrow.ipc.new_file(str(target), schema) as sink:
        for batch in reader:
            kept = batch.slice(min(skipped, batch.num_rows))
            skipped -= batch.num_rows - kept.num_rows
            sink.write_batch(kept)
            rows += kept.num_rows
    return rows
