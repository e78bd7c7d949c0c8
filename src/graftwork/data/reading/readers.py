"""Tables from files: CSV, TSV, Parquet, JSON Lines and JSON, read by pandas and pyarrow after checks that name the fault.

Nothing is guessed here: the cells of text files are texts as they stand. What they mean is decided by
:mod:`graftwork.data.reading.column` at training, and kept with the encoder.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.errors import FileFormatError
from graftwork.core.optional import require
from graftwork.core.scratch import scratch_folder
from graftwork.data.names import short_list
from graftwork.data.reading.cells import arrow_to_pandas
from graftwork.data.reading.header import first_line, guess_delimiter, long_fields
from graftwork.data.reading.large_tables import is_large
from graftwork.data.reading.nested import flatten_records
from graftwork.data.reading.sniff import check_encoding, check_table_file
from graftwork.data.reading.streamed import StreamedTable, parquet_faults, stream_delimited, stream_parquet
from graftwork.data.reading.surrogates import surrogate_note, without_lone_surrogates

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_columns", "open_table", "read_table"]

_EXTRA, _PURPOSE = "data", "Reading tables"


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table.

    Args:
        path: File ending in .csv, .tsv, .parquet, .pq, .jsonl, .ndjson or .json. Text files are UTF-8; the delimiter of a .csv
            file is found in its header (comma, semicolon, tab or bar). JSON files hold a list of objects; nested lists stay
            lists.

    Returns:
        A frame with a plain row index and string column names; records in cells have become one column a field. Cells of text
        files are texts, empty ones ``""``; those of the other formats have the types of the file. ``attrs["decimal"]`` is the
        decimal sign that is likelier in this file, ``attrs["notes"]`` what was left out or replaced.

    Raises:
        FileFormatError: If the file is missing, empty, truncated, not UTF-8, ragged, has duplicated column names, no rows, or is
            something else than its name says. Pickles and archives are recognised by their first bytes and never opened.
    """
    found = open_table(path, None)
    assert not isinstance(found, StreamedTable)
    return found


def open_table(path: str | Path, scratch: ExitStack | None) -> pd.DataFrame | StreamedTable:
    """Read a table; of a large CSV, TSV or Parquet file the columns are read when they are asked for.

    Args:
        path: As :func:`read_table` takes it.
        scratch: Closed when the table is no longer needed, which may be in a temporary folder; None reads any table whole.

    Raises:
        FileFormatError: As :func:`read_table`; for a damaged Parquet file perhaps not before a column is read.
    """
    path = Path(path)
    kind = check_table_file(path)
    frame: pd.DataFrame | StreamedTable
    if kind == "parquet":
        frame = (stream_parquet(path) if scratch is not None else None) or flatten_records(_read_parquet(path))
    else:
        check_encoding(path)
        frame = (
            _read_delimited(path, kind, scratch)
            if kind in ("csv", "tsv")
            else flatten_records(_read_json(path, lines=kind == "jsonl"))
        )
    if len(frame) == 0:
        raise FileFormatError(f"{path} has a header ({short_list(frame.columns)}) but no rows. Add rows, or give another file.")
    return frame


def check_columns(columns: Iterable[object], where: str) -> None:
    """Check that column names are present and unique.

    Raises:
        FileFormatError: Naming each duplicated or empty name and its positions, counted from 1.
    """
    names = ["" if column is None else str(column).strip() for column in columns]
    empty = [str(index) for index, name in enumerate(names, 1) if not name]
    if empty:
        raise FileFormatError(
            f"{where}: column {short_list(empty)} has no name. Every column needs a name in the header. Name it, or remove it."
        )
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        places = "; ".join(
            f"{name!r} in columns {[index for index, other in enumerate(names, 1) if other == name]}" for name in doubled
        )
        raise FileFormatError(
            f"{where}: duplicated column names: {places}. Names must be unique. Rename or remove the extra ones."
        )


def _read_delimited(path: Path, kind: str, scratch: ExitStack | None) -> pd.DataFrame | StreamedTable:
    pandas = require("pandas", extra=_EXTRA, purpose=_PURPOSE)
    # newline="": line breaks inside quoted fields must reach the CSV reader as they are.
    with open(path, encoding="utf-8-sig", newline="") as source:
        delimiter = "\t" if kind == "tsv" else guess_delimiter(first_line(source))
    # Python's reader checks, pandas reads: pandas fills short rows up without a word.
    with long_fields():
        header, num_rows = _check_rows(path, delimiter)
    notes = []
    if not header[0]:
        notes.append(
            f"The first column of {path.name} has no name, like the row numbers that DataFrame.to_csv writes: it is dropped."
        )
    # Semicolons separate where the comma is taken.
    attrs: dict[str, Any] = {"decimal": "," if delimiter == ";" else ".", "notes": notes}
    if scratch is not None and is_large(num_rows):
        folder = scratch.enter_context(scratch_folder("tables"))
        streamed = stream_delimited(path, header, num_rows, delimiter, folder, attrs)
        if streamed is not None:
            return streamed
    try:
        frame = pandas.read_csv(
            path,
            sep=delimiter,
            encoding="utf-8-sig",
            # Texts as they stand: what they mean is decided later, for the whole column.
            dtype=object,
            keep_default_na=False,
            na_filter=False,
            # Otherwise pandas takes the first column for an index where rows end in a delimiter.
            index_col=False,
            skip_blank_lines=True,
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
        raise FileFormatError(
            f"{path} cannot be read as {kind}: {error}. Repair the line named, or export the table again."
        ) from error
    if not header[0]:
        header, frame = header[1:], frame.iloc[:, 1:]
    frame.columns = header
    frame.attrs |= attrs
    return frame


def _check_rows(path: Path, delimiter: str) -> tuple[list[str], int]:
    """Check the header and that all rows are as long as it; return the column names and the number of rows."""
    ragged: list[str] = []
    num_ragged = num_rows = 0
    with open(path, encoding="utf-8-sig", newline="") as source:
        reader = csv.reader(source, delimiter=delimiter, strict=True)
        try:
            header = next((row for row in reader if row), [])
            if not any(name.strip() for name in header):
                raise FileFormatError(
                    f"{path} has no header: its lines are blank. The first line must name the columns. Export it again."
                )
            # An unnamed first column is dropped later, so its name is not asked for.
            check_columns(header if header[0].strip() else header[1:] or header, str(path))
            width = len(header)
            for row in reader:
                num_rows += bool(row)
                # Blank lines are no rows.
                if len(row) != width and row:
                    num_ragged += 1
                    if len(ragged) < 3:
                        ragged.append(f"line {reader.line_num} has {len(row)}")
        except csv.Error as error:
            raise FileFormatError(
                f"{path}, line {reader.line_num}: {error}. Quoted fields must be closed, and quotes inside them doubled. "
                "Repair that line; if it is the last one the file was cut off."
            ) from error
    if num_ragged:
        raise FileFormatError(
            f"{path}: {num_ragged} rows do not have {len(header)} fields like the header: {', '.join(ragged)}. Every row "
            f"needs the same number of fields (delimiter {delimiter!r}). Quote fields that hold the delimiter, or repair "
            "these lines."
        )
    return [name.strip() for name in header], num_rows


def _read_parquet(path: Path) -> pd.DataFrame:
    parquet = require("pyarrow.parquet", extra=_EXTRA, purpose="Reading Parquet")
    with parquet_faults(path):
        file = parquet.ParquetFile(path)
        check_columns(file.schema_arrow.names, str(path))
        frame: pd.DataFrame = arrow_to_pandas(file.read())
        # pandas stores a named index among the columns; an unnamed one only counts rows.
        if frame.index.name or any(name for name in frame.index.names):
            frame = frame.reset_index()
    # What pandas keeps about its index may name columns as others are called.
    check_columns(frame.columns, str(path))
    frame = frame.reset_index(drop=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    frame.attrs = {"notes": []}
    return frame


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    doubled = [name for name, count in Counter(key for key, _ in pairs).items() if count > 1]
    if doubled:
        raise ValueError(f"duplicated key {short_list(map(repr, doubled))} in one object")
    return dict(pairs)


def _read_json(path: Path, *, lines: bool) -> pd.DataFrame:
    pandas = require("pandas", extra=_EXTRA, purpose=_PURPOSE)
    records: list[dict[str, Any]] = []
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        raise FileFormatError(f"{path} holds only blank lines. Each line must be one JSON object. Export it again.")
    if lines:
        # Not splitlines, which also cuts at characters that JSON texts may hold, such as U+2028.
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=_unique_keys)
            except (ValueError, RecursionError) as error:
                raise FileFormatError(
                    f"{path}, line {number} is not one JSON object: {_fault(error)}; it begins {line.strip()[:40]!r}. "
                    "Repair the line; if it is the last one the file was cut off."
                ) from error
            if not isinstance(record, dict):
                raise FileFormatError(
                    f'{path}, line {number}: each line must be a JSON object like {{"a": 1}}; got {line.strip()[:40]!r}. '
                    "Repair it."
                )
            records.append(record)
    else:
        try:
            value = json.loads(text, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            hint = (
                " Files with one object per line must end in .jsonl."
                if "Extra data" in str(error)
                else " It may have been cut off."
            )
            raise FileFormatError(f"{path} is not valid JSON: {_fault(error)}.{hint} Repair or rename it.") from error
        if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
            raise FileFormatError(
                f'{path} must hold a list of objects, one per row, like [{{"a": 1}}]; got {type(value).__name__}. '
                "Write it as such a list, or as JSON Lines (.jsonl)."
            )
        records = value
    replaced = 0
    # Only an escape can make half a character, since the file is valid UTF-8.
    if "\\ud" in text or "\\uD" in text:
        counted = [without_lone_surrogates(record) for record in records]
        records, replaced = [record for record, _ in counted], sum(count for _, count in counted)
    frame = _frame_of(records, str(path), pandas)
    frame.attrs["notes"] = [surrogate_note(replaced)] if replaced else []
    return frame


def _fault(error: Exception) -> str:
    return "brackets are nested too deeply" if isinstance(error, RecursionError) else str(error)


def _frame_of(records: Sequence[Mapping[str, Any]], where: str, pandas: Any) -> pd.DataFrame:
    """Return records as a frame whose columns keep their values: integers stay integers where others are missing."""
    names = list(dict.fromkeys(chain.from_iterable(records)))
    # As objects first: pandas would turn integers with gaps into floats.
    columns = [pandas.Series([record.get(name) for record in records], dtype=object) for name in names]
    frame = (
        pandas.concat([_narrowed(column) for column in columns], axis=1)
        if columns
        else pandas.DataFrame(index=range(len(records)))
    )
    frame.columns = [str(name).strip() for name in names]
    check_columns(frame.columns, where)
    return frame


def _narrowed(column: pd.Series) -> pd.Series:
    """Return cells of one type (integers, numbers, booleans) in that type, missing ones included; others as they are."""
    types = set(map(type, column.tolist())) - {type(None)}
    if types == {bool}:
        return column.astype("boolean")
    if types == {int}:
        try:
            return column.astype("Int64")
        except (OverflowError, TypeError):
            return column
    # Beyond 2^53 neighbouring integers become one float.
    return column.astype("float64") if types in ({float}, {int, float}) and not _too_large(column) else column


def _too_large(column: pd.Series) -> bool:
    """Return whether a column holds integers that are no exact floating-point numbers."""
    return any(isinstance(cell, int) and abs(cell) > 2**53 for cell in column.tolist())
