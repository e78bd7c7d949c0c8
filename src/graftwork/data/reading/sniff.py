"""What a file really is, by its first bytes, before anything opens it. Standard library only."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from graftwork.core.errors import FileFormatError
from graftwork.data.names import did_you_mean

__all__ = ["TABLE_FORMATS", "check_encoding", "check_table_file", "describe_content"]

TABLE_FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
"""File name ending -> format that :func:`graftwork.data.reading.readers.read_table` reads."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip archive (also the container of .xlsx, .npz and PyTorch checkpoints)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "gzip-compressed data"),
    (b"BZh", "bzip2-compressed data"),
    (b"\xfd7zXZ\x00", "xz-compressed data"),
    (b"\x28\xb5\x2f\xfd", "zstandard-compressed data"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "a SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Microsoft Office file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"ARROW1", "an Arrow/Feather file"),
    (b"Obj\x01", "an Avro file"),
)
_PICKLE_OPENERS = b"(]})cKXU\x8c\x95\x93"
_CHUNK = 1 << 20


def describe_content(path: Path) -> str | None:
    """Return what the first bytes say a file is, in words, or None for text and unknown content.

    Nothing is parsed, so that a renamed pickle or archive is recognised without being opened.
    """
    with open(path, "rb") as source:
        head = source.read(16)
    for signature, description in _SIGNATURES:
        if head.startswith(signature):
            return description
    # Protocols 2 to 5 begin so; the third byte keeps other binary files from being taken for pickles.
    if len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2] in _PICKLE_OPENERS:
        return "a Python pickle"
    return None


def check_table_file(path: str | Path) -> str:
    """Check that a file may be opened as a table and return its format (a value of :data:`TABLE_FORMATS`).

    Raises:
        FileFormatError: If it does not exist, is empty, has an unknown ending, or its content is not what the ending says.
    """
    path = Path(path)
    allowed = ", ".join(TABLE_FORMATS)
    if not os.path.isfile(path):
        names = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        reason = "is a folder" if os.path.isdir(path) else "does not exist"
        raise FileFormatError(f"{path} {reason}.{did_you_mean(path.name, names)} Give the path of a table ({allowed}).")
    if path.stat().st_size == 0:
        raise FileFormatError(
            f"{path} is empty (zero bytes). A table needs a header and rows. Export it again, or restore it from a copy."
        )
    kind = TABLE_FORMATS.get(path.suffix.lower())
    content = describe_content(path)
    if content == "a Python pickle":
        raise FileFormatError(
            f"{path} is a Python pickle. Pickles can run code when opened, so graftwork never opens them. "
            f"Save the table as one of {allowed}, for example with DataFrame.to_parquet."
        )
    if kind is None:
        found = f" Its content looks like {content}." if content else ""
        raise FileFormatError(
            f"{path} has the ending {path.suffix!r}, which is none of {allowed}.{found} "
            "Save the table in one of these formats, or rename it if only the name is wrong."
        )
    # Either way round: a Parquet file called .csv, and text called .parquet.
    if (kind == "parquet") != (content == "a Parquet file"):
        really = content or "text, or something unknown"
        raise FileFormatError(
            f"{path} is called {path.suffix} but its content is {really}. Rename it to what it is, or save it "
            f"again as one of {allowed}."
        )
    if kind != "parquet" and content is not None:
        raise FileFormatError(
            f"{path} is called {path.suffix} but its content is {content}. Unpack or export it to one of {allowed} first."
        )
    return kind


def _suggest_encoding(path: Path) -> str:
    """Return a likely encoding of a file that is not UTF-8."""
    with open(path, "rb") as source:
        sample = source.read(_CHUNK)
    # Without a mark UTF-16 shows by zeros in every other byte of Latin letters.
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or (
        len(sample) > 8 and max(sample[0::2].count(0), sample[1::2].count(0)) > len(sample) // 4
    ):
        return "UTF-16"
    try:
        # A few bytes mean nothing in cp1252, every byte means something in ISO-8859-1.
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return "ISO-8859-1"
    return "WINDOWS-1252"


def check_encoding(path: str | Path) -> None:
    """Check that a text file is UTF-8 (with or without a byte order mark), in chunks.

    Raises:
        FileFormatError: Naming byte offset, line, offending byte and a likely encoding.
    """
    path = Path(path)
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = lines = 0
    with open(path, "rb") as source:
        while True:
            chunk = source.read(_CHUNK)
            # Bytes of a character that the chunk before cut in two: the decoder still holds them.
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                position = offset - pending + error.start
                line = lines + chunk[: max(error.start - pending, 0)].count(b"\n") + 1
                byte = error.object[error.start]
                guess = _suggest_encoding(path)
                raise FileFormatError(
                    f"{path} is not UTF-8 text: byte 0x{byte:02x} at offset {position} (line {line}) does not fit. It looks "
                    f"like {guess}. Convert it: iconv -f {guess} -t UTF-8 {os.fspath(path.name)} > converted{path.suffix}"
                ) from error
            if not chunk:
                return
            if "\x00" in text:
                guess = _suggest_encoding(path)
                at = offset + max(chunk.find(b"\x00"), 0)
                hint = (
                    f"It looks like {guess}. Convert it with iconv."
                    if guess == "UTF-16"
                    else "Tables hold text only. Export it again."
                )
                raise FileFormatError(f"{path} holds a zero byte (0x00) at offset {at}; it is not a text table. {hint}")
            offset += len(chunk)
            lines += chunk.count(b"\n")
