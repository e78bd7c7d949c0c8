"""Picture files: which ones are read, the list of a folder, and headers that are checked before any pixel is decoded."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.names import short_list
from graftwork.data.reading.sniff import describe_content

__all__ = [
    "IMAGE_ENDINGS",
    "MAX_PIXELS",
    "PICTURE_FORMATS",
    "PictureError",
    "check_pixels",
    "list_images",
    "open_picture",
    "picture_name",
    "unread_note",
]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The formats that Pillow may try. The list is fixed because some of the others start programs (EPS starts Ghostscript)."""
MAX_PIXELS = 50_000_000
"""Most pixels of one picture; a decoded pixel takes up to 4 bytes."""
_SHARES = {"JPEG": 3.0, "MPO": 3.0, "WEBP": 0.5}
"""Share of the limit by format: a JPEG that is not progressive is shrunk while it is decoded, WebP's decoder keeps copies."""
_UNREAD_ENDINGS = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".svg", ".eps", ".psd", ".tga", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".exr", ".hdr", ".dcm"),
)


class PictureError(DataError):
    """One picture cannot be used. The message is a name and a reason in brackets, to be listed with others.

    Args:
        name: Name of the file.
        reason: A few words.
        too_large: Whether the picture has too many pixels, and nothing else is wrong.
    """

    def __init__(self, name: str, reason: str, *, too_large: bool = False) -> None:
        super().__init__(f"{name} ({reason})")
        self.reason = reason
        self.too_large = too_large


def list_images(folder: str | Path) -> list[Path]:
    """Return all picture files below ``folder``, sorted by path.

    Hidden files and folders are left out. Links to files inside the folder are followed; a link to nowhere is listed, so that
    reading it names it.

    Raises:
        DataError: If there are none, or some are links that lead out of the folder.
    """
    folder = Path(folder)
    outside: list[str] = []
    found = [path for path in _walk(folder, outside) if path.suffix.lower() in IMAGE_ENDINGS]
    if outside:
        raise DataError(
            f"{folder}: {len(outside)} links lead out of the folder: {short_list(sorted(outside), 5)}. "
            "Only files inside the folder are read. Copy what they point to into it (cp -rL copies a whole folder so), "
            "or remove the links."
        )
    if not found:
        raise DataError(
            f"{folder} holds no pictures. Endings read: {', '.join(IMAGE_ENDINGS)}. Give the folder that holds the picture files."
        )
    return sorted(found)


def unread_note(folder: Path) -> list[str]:
    """Return a note about files that are pictures by their ending, but of a format that is not read."""
    files = [path for path in _walk(folder, []) if path.suffix.lower() in _UNREAD_ENDINGS]
    if not files:
        return []
    names = short_list(sorted(path.relative_to(folder).as_posix() for path in files), 3)
    return [f"{len(files)} files are of picture formats that are not read ({names}); convert them to PNG or JPEG to use them."]


def _walk(folder: Path, outside: list[str]) -> Iterator[Path]:
    """Yield the files below ``folder``; links that lead out of it are added to ``outside`` instead."""
    # Links are compared with the real path of the folder, which may be reached by a link itself.
    root = folder.resolve()
    pending = [folder]
    while pending:
        place = pending.pop()
        try:
            entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".") and entry.name != "__MACOSX"]
        except OSError as error:
            raise DataError(f"{place} cannot be listed: {error.strerror}. Give a folder that you may read.") from error
        for entry in entries:
            path = Path(entry.path)
            if not entry.is_symlink():
                if entry.is_dir():
                    pending.append(path)
                elif entry.is_file():
                    yield path
                else:
                    _refuse_special(path)
                continue
            target = Path(os.path.realpath(path))  # not Path.resolve, which raises for a link to itself
            # Links to other files (a README, say) are of no interest, wherever they lead.
            linked = path.is_dir() or path.suffix.lower() in IMAGE_ENDINGS
            if linked and target.exists() and not target.is_relative_to(root):
                outside.append(f"{path.relative_to(folder).as_posix()} -> {target}")
            elif target.exists() and not path.is_dir() and not path.is_file():
                _refuse_special(path)
            elif not path.is_dir():  # the files of a linked folder inside this one are listed where they are
                yield path


def _refuse_special(path: Path) -> None:
    """Refuse a pipe, a socket or a device under the name of a picture: reading it could wait, or go on, for ever.

    Raises:
        DataError: If it is called like a picture.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        raise DataError(f"{path} is a pipe, a socket or a device, not a file. Remove it from the folder of pictures.")


@contextlib.contextmanager
def open_picture(item: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Iterator[Any]:
    """Open a picture: the header is read and its size checked, pixels are decoded when they are asked for.

    Args:
        item: Path or content of a file.
        max_pixels: Most pixels of the picture; three times as many for a baseline JPEG, which can be shrunk while it is decoded,
            and half as many for WebP, whose decoder needs more memory.

    Yields:
        Pillow's picture, of one of :data:`PICTURE_FORMATS`. Whatever a decoder raises inside the ``with`` block becomes a
        ``PictureError``.

    Raises:
        PictureError: Naming the file: missing, empty, damaged, of another format, or too large.
    """
    images = require("PIL.Image", extra="vision", purpose="Reading pictures")
    name = picture_name(item)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is stricter than Pillow's warning; damaged metadata does not matter
            with images.open(io.BytesIO(item) if isinstance(item, bytes) else item, formats=PICTURE_FORMATS) as picture:
                # Progressive JPEGs hold all coefficients of the full size in memory before they are shrunk.
                share = 1.0 if picture.info.get("progressive") else _SHARES.get(picture.format, 1.0)
                check_pixels(name, picture.size, int(max_pixels * share))
                yield picture
    except DataError:
        raise
    except images.DecompressionBombError as error:  # Pillow's own limit, above ours
        pixels = re.search(r"\d+", str(error))
        size = f"{int(pixels.group()):,} pixels" if pixels else "too many pixels"
        raise PictureError(name, f"{size}, the limit is {max_pixels:,}", too_large=True) from error
    except Exception as error:  # each decoder fails in ways of its own: struct.error, KeyError, zlib.error, ...
        raise PictureError(name, _reason(item, error)) from error


def picture_name(item: str | Path | bytes) -> str:
    """Return the last two parts of a path, or ``picture`` for contents."""
    return "picture" if isinstance(item, bytes) else Path(*Path(item).parts[-2:]).as_posix()


def check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    """Raise a ``PictureError`` that names size and limit if ``size`` (width, height) is too large."""
    width, height = size
    if width * height > max_pixels:
        raise PictureError(name, f"{width} x {height} pixels, the limit is {max_pixels:,}", too_large=True)


def _reason(item: str | Path | bytes, error: Exception) -> str:
    """Return in a few words why a picture cannot be decoded."""
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if not isinstance(item, bytes):
        path = Path(item)
        if not path.exists():
            return "a link to a file that does not exist" if path.is_symlink() else "no such file"
        if isinstance(error, PermissionError):
            return "not allowed to read it"
        if path.is_file() and path.stat().st_size == 0:
            return "zero bytes"
    # Beginnings of files tell more than the decoder's error does.
    head = item[:16] if isinstance(item, bytes) else _head(Path(item))
    if not head:
        return "zero bytes" if isinstance(item, bytes) else "not a readable picture"
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "a PostScript file, which is not read"
    if head[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file, which is not read"
    content = "" if isinstance(item, bytes) else describe_content(Path(item)) or ""
    is_picture = head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8")) or "truncated" in str(error).lower()
    return "truncated or damaged" if is_picture else content or "not a readable picture"


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(16)
    except OSError:
        return b""
