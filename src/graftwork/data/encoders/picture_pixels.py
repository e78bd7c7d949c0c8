"""From an open picture to a square of RGB pixels: upright, over a background, resized, with bounded memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.encoders.deep_pixels import Scales, strips, to_bytes, value_kind
from graftwork.data.encoders.picture_files import PictureError, check_pixels

__all__ = ["FITS", "square_pixels"]

FITS = ("pad", "stretch", "crop")
_GAP = 3.0
"""Pictures are averaged over whole blocks down to this many times the final size, and interpolated from there."""
_ORIENTATION = 0x0112
# What makes a picture upright, by the orientation in its EXIF block; 1 and everything unknown need nothing.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_SIDEWAYS = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")


def square_pixels(
    picture: Any, name: str, *, size: int, fit: str, background: tuple[int, int, int], scales: Scales, max_pixels: int
) -> NDArray[np.uint8]:
    """Decode a picture.

    Args:
        picture: What :func:`~graftwork.data.encoders.picture_files.open_picture` yields.
        name: Its name, for errors.
        size: Side ``S`` in pixels.
        fit: One of :data:`FITS`.
        background: RGB, 0 to 255 each.
        scales: Of pictures with more than 8 bits a value.
        max_pixels: Most pixels to decode, after a JPEG has been shrunk.

    Returns:
        uint8 ``[S, S, 3]``.

    Raises:
        PictureError: If it has too many pixels, or values that have no scale.
    """
    images = require("PIL.Image", extra="vision", purpose="Reading pictures")
    wide, high = picture.size
    side = max(wide, high) if fit == "pad" else min(wide, high)
    # Decoders shrink by 8 at most. Down to 3 times the final size; from there on pixels are averaged and interpolated.
    shrink = min(8, int(side / size / _GAP))
    if shrink > 1:  # only JPEG does anything here; it decodes 1/2, 1/4 or 1/8 of the size at a fraction of time and memory
        picture.draft(None, (wide // shrink, high // shrink))
    # Again, for the size that is decoded now: a JPEG that could not be shrunk is too large after all.
    check_pixels(name, picture.size, max_pixels)
    if (
        picture.format == "TIFF"
    ):  # Pillow reads these tags while it decodes, and turns the picture; a damaged block must not stop it
        _orientation(picture)
    picture.load()
    turn = _TURNS.get(_orientation(picture))
    if turn is not None:
        picture = picture.transpose(getattr(images.Transpose, turn))
        wide, high = (high, wide) if turn in _SIDEWAYS else (wide, high)
    width, height = picture.size  # of a shrunk JPEG rounded up; shapes go by what its header says
    try:
        if fit == "crop":
            side = min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            return np.asarray(_resized(picture, (left, top, left + side, top + side), (size, size), background, scales), np.uint8)
        # By the header's shape: rounding of a shrunk JPEG must not change the proportions.
        scale = size / max(wide, high)
        inner = (max(1, round(wide * scale)), max(1, round(high * scale))) if fit == "pad" else (size, size)
        shown = _resized(picture, (0, 0, width, height), inner, background, scales)
    except DataError as error:
        raise PictureError(name, str(error)) from error
    if inner == (size, size):
        return np.asarray(shown, np.uint8)
    canvas = images.new("RGB", (size, size), background)
    canvas.paste(shown, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return np.asarray(canvas, np.uint8)


def _orientation(picture: Any) -> int:
    """Return the orientation that EXIF (or XMP) names, 1 to 8; 1 if the block is damaged. A loaded TIFF is upright already.

    Nothing is written back: many cameras write EXIF blocks that can be read but not written.
    """
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged block fails in many ways; it is treated as no block
        return 1
    return found if isinstance(found, int) else 1


def _resized(
    picture: Any, box: tuple[int, int, int, int], size: tuple[int, int], background: tuple[int, int, int], scales: Scales
) -> Any:
    """Return the pixels in ``box`` as an RGB picture of ``size``.

    The same values as converting all to RGB and ``resize(size, BILINEAR, reducing_gap=3)``, but strip by strip: no second picture
    of full size is made.
    """
    images = require("PIL.Image", extra="vision", purpose="Reading pictures")
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    # Blocks of whole pixels, as `reducing_gap` takes them.
    across, down = int(width / size[0] / _GAP) or 1, int(height / size[1] / _GAP) or 1
    if picture.mode == "RGB" and "transparency" not in picture.info and across == down == 1:
        part = picture if box == (0, 0, *picture.size) else picture.crop(box)
    else:
        part = images.new("RGB", (-(-width // across), -(-height // down)))
        for start, end in strips(height, width, down):
            strip = _rgb(picture.crop((left, top + start, right, top + end)), background, scales)
            # A strip is a multiple of `down` high, so its place in the smaller picture is a whole number.
            part.paste(strip.reduce((across, down)) if across * down > 1 else strip, (0, start // down))
    if part.size == size and across == down == 1:
        return part
    # The last block may be partly outside; the box says in parts of a block where the picture ends.
    return part.resize(size, images.Resampling.BILINEAR, box=(0, 0, width / across, height / down))


def _rgb(strip: Any, background: tuple[int, int, int], scales: Scales) -> Any:
    images = require("PIL.Image", extra="vision", purpose="Reading pictures")
    kind = value_kind(strip.mode)
    if kind:
        return images.fromarray(to_bytes(np.asarray(strip), kind, scales)).convert("RGB")
    if strip.mode in ("RGBA", "LA", "PA") or "transparency" in strip.info:
        # alpha_composite wants RGBA on both sides.
        canvas = images.new("RGBA", strip.size, (*background, 255))
        canvas.alpha_composite(strip.convert("RGBA"))
        return canvas.convert("RGB")
    return strip if strip.mode == "RGB" else strip.convert("RGB")
