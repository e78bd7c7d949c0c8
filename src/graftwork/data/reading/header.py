"""The first line of a delimited text file: its delimiter and column names. Standard library only, for checks before anything
loads."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["first_line", "guess_delimiter", "long_fields", "read_header"]


def first_line(lines: Iterable[str]) -> str:
    """Return the first line that is not blank, which is the header; an empty text if there is none."""
    return next((line for line in lines if line.strip()), "")


def guess_delimiter(header: str) -> str:
    """Return the delimiter of a header line: the most frequent of comma, semicolon, tab and bar outside quotes.

    Example:
        >>> guess_delimiter('a;"b,c";d')
        ';'
    """
    # Text between quotes has odd numbers; delimiters in it do not count.
    bare = "".join(part for index, part in enumerate(header.split('"')) if index % 2 == 0)
    # The comma wins where counts are equal, also where there is no delimiter.
    return max(",;\t|", key=lambda delimiter: (bare.count(delimiter), delimiter == ","))


def read_header(path: str | Path) -> list[str]:
    """Return the column names of a CSV or TSV file, reading no further than its header (no pandas)."""
    path = Path(path)
    # utf-8-sig drops the mark that spreadsheets write in front of the first name.
    with open(path, encoding="utf-8-sig", newline="") as source:
        first = first_line(source)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else guess_delimiter(first)
    with long_fields():
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]


@contextmanager
def long_fields() -> Iterator[None]:
    """Let fields of any length through Python's CSV reader, which stops at 131,072 characters by default."""
    # 2^31 - 1 is the most that fits a C long on every system.
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)
