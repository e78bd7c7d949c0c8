"""What the pictures of the nursery show: drawings and characters on a transparent ground, read from the files of pip packages.

A third of the emoji, by families of near duplicates, is never used here: the checks of the models ask about it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import package_folder, require
from graftwork.data.suites.emoji_files import INSTALL, Emoji, draw_lines, read_emoji, read_pictures

__all__ = ["SCRIPTS", "SIDE", "Stamps", "held_out", "read_stamps"]

SIDE = 72
"""Height and width of a stamp in pixels."""
WEIGHTS = (300, 800)
"""Weights in which every character is drawn."""
_HELD_OUT_OF = 3
_MISSING = "\U0010fffe"
"""A character that no font has: what is drawn for it stands for every missing one."""
SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    "NotoSans[wght].ttf": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), (0x391, 0x3C9), (0x410, 0x44F)),
    "NotoSansArabic[wght].ttf": ((0x621, 0x64A),),
    "NotoSansArmenian[wght].ttf": ((0x531, 0x586),),
    "NotoSansBengali[wght].ttf": ((0x985, 0x9B9),),
    "NotoSansDevanagari[wght].ttf": ((0x905, 0x939),),
    "NotoSansEthiopic[wght].ttf": ((0x1200, 0x1240),),
    "NotoSansGeorgian[wght].ttf": ((0x10D0, 0x10F0),),
    "NotoSansGujarati[wght].ttf": ((0xA85, 0xAB9),),
    "NotoSansGurmukhi[wght].ttf": ((0xA05, 0xA39),),
    "NotoSansHebrew[wght].ttf": ((0x5D0, 0x5EA),),
    "NotoSansKannada[wght].ttf": ((0xC85, 0xCB9),),
    "NotoSansKhmer[wght].ttf": ((0x1780, 0x17B3),),
    "NotoSansLao[wght].ttf": ((0xE81, 0xEAE),),
    "NotoSansMalayalam[wght].ttf": ((0xD05, 0xD39),),
    "NotoSansMyanmar[wght].ttf": ((0x1000, 0x1021),),
    "NotoSansOriya[wght].ttf": ((0xB05, 0xB39),),
    "NotoSansSinhala[wght].ttf": ((0xD85, 0xDC6),),
    "NotoSansSymbols[wght].ttf": ((0x1F700, 0x1F773),),
    "NotoSansTamil[wght].ttf": ((0xB85, 0xBB9),),
    "NotoSansTelugu[wght].ttf": ((0xC05, 0xC39),),
    "NotoSansThai[wght].ttf": ((0xE01, 0xE2E),),
}
"""Font file -> ranges of code points, first and last included; what a font lacks is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stamps:
    """Drawings of one kind."""

    pictures: NDArray[np.uint8]
    """RGBA ``[N, SIDE, SIDE, 4]``; line drawings and characters are black."""
    labels: NDArray[np.int64]
    """What each one shows, ``[N]``: an emoji has the same number in every style."""


def held_out(family: str) -> bool:
    """Return whether emoji of this family are left for the checks; about a third are, the same for every seed."""
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:4], "big") % _HELD_OUT_OF == 0


@cache
def read_stamps() -> tuple[dict[str, Stamps], int]:
    """Return all stamps by kind (``colour``, ``line``, ``character``), and how many things they show.

    Raises:
        MissingDependencyError: If a package is not installed; the message holds the pip command.
    """
    emoji = [item for item in read_emoji() if not held_out(item.family)]
    numbers = {item.key: number for number, item in enumerate(emoji)}
    single = [item for item in emoji if item.is_single]
    characters, labels = _characters()
    stamps = {
        "colour": Stamps(pictures=_stack(list(read_pictures(emoji))), labels=_labels(emoji, numbers)),
        "line": Stamps(pictures=_stack(list(draw_lines(single, SIDE))), labels=_labels(single, numbers)),
        "character": Stamps(pictures=characters, labels=labels + len(emoji)),
    }
    return stamps, len(emoji) + int(labels.max()) + 1


def _labels(emoji: Sequence[Emoji], numbers: dict[str, int]) -> NDArray[np.int64]:
    return np.array([numbers[item.key] for item in emoji], dtype=np.int64)


def _stack(pictures: Sequence[Any]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])


def _characters() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return every character in every weight, ``[N, SIDE, SIDE, 4]``, and the number of each, ``[N]``."""
    images, fonts, drawing = (
        require(f"PIL.{name}", extra="vision", purpose="The nursery") for name in ("Image", "ImageFont", "ImageDraw")
    )
    folder = package_folder("manimgx_fonts", install=INSTALL, purpose="The nursery")
    pictures, labels = [], []
    first = 0
    for name, ranges in SCRIPTS.items():
        font = fonts.truetype(str(folder / name), 46, layout_engine=fonts.Layout.BASIC)
        points = [point for low, high in ranges for point in range(low, high + 1)]
        for weight in WEIGHTS:
            font.set_variation_by_axes([weight, *_other_axes(font)])
            missing = bytes(font.getmask(_MISSING))
            for number, point in enumerate(points):
                if bytes(font.getmask(chr(point))) in (missing, b""):
                    continue
                left, top, right, bottom = font.getbbox(chr(point))
                alpha = images.new("L", (SIDE, SIDE), 0)
                corner = ((SIDE - right - left) / 2, (SIDE - bottom - top) / 2)
                drawing.Draw(alpha).text(corner, chr(point), font=font, fill=255)
                picture = np.zeros((SIDE, SIDE, 4), np.uint8)
                picture[..., 3] = np.asarray(alpha)
                pictures.append(picture)
                labels.append(first + number)
        first += len(points)
    # Numbers without gaps: characters that a font lacks have none.
    return np.stack(pictures), np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _other_axes(font: Any) -> list[float]:
    """Return the defaults of all axes but the first one, the weight."""
    return [float(axis["default"]) for axis in font.get_variation_axes()[1:]]
