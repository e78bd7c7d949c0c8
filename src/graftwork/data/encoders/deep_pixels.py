"""Pictures with more than 8 bits a value (16-bit, 32-bit, floating point): one scale for a whole set, decided at training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.encoders.picture_files import open_picture
from graftwork.data.names import short_list

__all__ = ["PictureSurvey", "Scales", "choose_scale", "strips", "survey_pictures", "to_bytes", "value_kind"]

Scales = Mapping[str, tuple[float, float]]
"""``{"integer": (low, high), "float": (low, high)}``: values that become 0 and 255."""

_NAMES = {"integer": "integers of more than 8 bits", "float": "floating-point values"}
# Cameras and scanners store 10, 12 and 14 bits in files of 16.
_BITS = (1, 2, 4, 8, 10, 12, 14, 16)
_STRIP_PIXELS = 1 << 20
_MIN_SHARE = 1 / 8
"""Sets whose values fill less of a usual range are scaled by their own lowest and highest value."""
_FLAT = 0.1


@dataclass(frozen=True, slots=True)
class PictureSurvey:
    """What the headers of all pictures and the values of the deep ones say."""

    scales: dict[str, tuple[float, float]]
    """As :data:`Scales`; empty if all pictures have 8 bits a value."""
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Ranges:
    low: float = np.inf
    high: float = -np.inf
    spans: list[float] = field(default_factory=list)

    def add(self, low: float, high: float) -> None:
        if low <= high:
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.spans.append(high - low)


def value_kind(mode: str) -> str:
    """Return ``integer`` or ``float`` for a mode of Pillow with one deep value a pixel, an empty text for 8 bits and fewer."""
    # Pillow's modes of deep integers are I, I;16, I;16B ...
    return "float" if mode == "F" else "integer" if mode.startswith("I") else ""


def survey_pictures(images: Sequence[Path], rows: Iterable[int] | None = None) -> PictureSurvey:
    """Look at all pictures before they are encoded.

    Args:
        images: Picture files. Those that cannot be read are passed over; encoding names them.
        rows: Pictures that decide the scales, the training rows; all by default, and where none of these is deep.

    Returns:
        The scales, and notes about them and about pictures with several frames.
    """
    deep: dict[str, list[int]] = {"integer": [], "float": []}
    moving: list[str] = []
    for index, path in enumerate(images):
        try:
            with open_picture(path) as picture:
                kind = value_kind(picture.mode)
                # A phone's JPEG may hold a second picture (a depth or gain map), which is no frame.
                several = picture.format != "MPO" and getattr(picture, "is_animated", False)
        except DataError:
            continue
        if kind:
            deep[kind].append(index)
        if several:
            moving.append(path.name)
    scales: dict[str, tuple[float, float]] = {}
    notes = [f"{len(moving)} pictures have several frames; the first is used: {short_list(moving, 3)}."] if moving else []
    chosen = None if rows is None else set(map(int, rows))
    for kind, members in deep.items():
        # Scales come from training rows, as all statistics do; but some scale is needed if none of these is deep.
        deciding = [index for index in members if chosen is None or index in chosen] or members
        if deciding:
            ranges, holes = _measure([images[index] for index in deciding])
            if ranges.spans:
                scales[kind] = choose_scale(ranges.low, ranges.high)
                notes.append(_scale_note(kind, len(members), len(images), scales[kind], ranges, holes))
    return PictureSurvey(scales, tuple(notes))


def choose_scale(low: float, high: float) -> tuple[float, float]:
    """Return the values that become 0 and 255, for a set whose values lie from ``low`` to ``high``.

    The usual range that holds them: 0 to 1 or -1 to 1, or 0 to the highest value of 2, 4, 8, 10, 12, 14 or 16 bits. Values beyond
    all of these, and values that fill less than an eighth of theirs, take ``low`` to ``high`` itself.

    Example:
        >>> choose_scale(3, 3800), choose_scale(0, 0.97), choose_scale(30000, 30900)
        ((0.0, 4095.0), (0.0, 1.0), (30000.0, 30900.0))
    """
    # From narrow to wide, so that the first one that holds the values is the tightest.
    usual = [(0.0, 1.0), (-1.0, 1.0), *((0.0, 2.0**bits - 1) for bits in _BITS[1:])]
    found = next((pair for pair in usual if pair[0] <= low and high <= pair[1]), None)
    own = (float(low), float(high)) if high > low else None
    if found is None:
        # All values equal and beyond the usual ranges: any width above 0 will do.
        return own or (float(low), float(low) + max(1.0, abs(low)))
    return own if own and high - low < _MIN_SHARE * (found[1] - found[0]) else found


def to_bytes(values: NDArray[Any], kind: str, scales: Scales) -> NDArray[np.uint8]:
    """Return deep values as 0 to 255, cut off at both ends of their scale; what is not finite counts as the lowest value.

    Args:
        values: Any shape.
        kind: ``integer`` or ``float``.
        scales: Of the training set. Integers without a scale are taken as 16-bit.

    Raises:
        DataError: If there is no scale and none can be taken for granted; a few words, to be put behind the name of the file.
    """
    if kind not in scales and (kind == "float" or (values.size and (values.min() < 0 or values.max() > 65535))):
        raise DataError(f"{_NAMES[kind]}, which no picture of the training data has; save it with 8 bits a value")
    low, high = scales.get(kind, (0.0, 65535.0))
    # float64: 32-bit integers lose their last bits in float32.
    exact = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint(np.clip((exact - low) / (high - low) * 255.0, 0, 255)).astype(np.uint8)


def strips(height: int, width: int, step: int = 1) -> Iterable[tuple[int, int]]:
    """Yield (top, bottom) of strips of about a million pixels; all but the last are a multiple of ``step`` high."""
    # A multiple of `step`, so that no averaged block is cut in two.
    rows = max(step, _STRIP_PIXELS // max(width, 1) // step * step)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _measure(paths: Sequence[Path]) -> tuple[_Ranges, list[str]]:
    """Return the range of the finite values of all pictures, and the names of those with values that are not finite."""
    ranges, holes = _Ranges(), []
    for path in paths:
        low, high, whole = np.inf, -np.inf, True
        try:
            with open_picture(path) as picture:
                for top, bottom in strips(picture.height, picture.width):
                    values = np.asarray(picture.crop((0, top, picture.width, bottom))).astype(np.float64)
                    finite = values[np.isfinite(values)]
                    whole &= finite.size == values.size
                    low, high = min(low, finite.min(initial=np.inf)), max(high, finite.max(initial=-np.inf))
        except DataError:
            continue
        ranges.add(float(low), float(high))
        if not whole:
            holes.append(path.name)
    return ranges, holes


def _scale_note(kind: str, count: int, total: int, scale: tuple[float, float], ranges: _Ranges, holes: Sequence[str]) -> str:
    low, high = scale
    note = (
        f"{count} of {total} pictures hold {_NAMES[kind]}, from {ranges.low:g} to {ranges.high:g} in the training rows: "
        f"{low:g} becomes 0 and {high:g} becomes 255, in all of them and in later pictures alike."
    )
    # The median: a few flat pictures in a lively set are no fault of the scale.
    if np.median(ranges.spans) < _FLAT * (high - low):
        note += (
            " In half of them the values span less than a tenth of that, so they look flat: rescale the files if that matters."
        )
    if holes:
        note += f" Values that are not finite count as {low:g}: {short_list(holes, 3)}."
    return note
