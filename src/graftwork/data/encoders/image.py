"""ImageEncoder: picture files as square uint8 RGB arrays, with every undecodable file named at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.deep_pixels import Scales
from graftwork.data.encoders.picture_files import MAX_PIXELS, PictureError, open_picture, picture_name
from graftwork.data.encoders.picture_pixels import FITS, square_pixels
from graftwork.data.names import check_names, short_list
from graftwork.data.reading.cells import as_text

__all__ = ["ImageEncoder"]


class ImageEncoder(Encoder):
    """Pictures become ``image`` uint8 ``[N, S, S, 3]``: upright by EXIF, transparency over a background, made square, resized.

    Of pictures with several frames the first is taken. Values of more than 8 bits become 0 to 255 by one scale for all pictures.

    Args:
        size: Side ``S`` in pixels, from 8 to 1024.
        fit: ``pad`` keeps the whole picture with background at the sides, ``crop`` cuts the centre square, ``stretch`` distorts.
        background: RGB behind transparent pixels and at padded sides, 0 to 255 each.
        scales: ``{"integer": (low, high), "float": (low, high)}``, the values that become 0 and 255 in pictures with more than 8
            bits a value, as :func:`~graftwork.data.encoders.deep_pixels.survey_pictures` finds them. Without one, integers are
            16-bit, and floating-point values are refused.
        column: Column that names the pictures when a table is given.

    Raises:
        DataError: If a setting is out of range.
    """

    kind: ClassVar[str] = "image"

    def __init__(
        self,
        size: int,
        *,
        fit: str = "pad",
        background: Sequence[int] = (255, 255, 255),
        scales: Scales | None = None,
        column: str | None = None,
    ) -> None:
        if not 8 <= size <= 1024:
            raise DataError(f"The image size must be from 8 to 1024 pixels; got {size}. Typical sizes are 32, 64, 128 and 224.")
        if fit not in FITS:
            raise DataError(f"The picture fit must be one of {', '.join(FITS)}; got {fit!r}.")
        self.size = int(size)
        self.fit = fit
        self.column = column
        self.background = (int(background[0]), int(background[1]), int(background[2]))
        self.scales = {kind: (float(low), float(high)) for kind, (low, high) in (scales or {}).items()}
        wrong = [
            kind
            for kind, (low, high) in self.scales.items()
            if kind not in ("integer", "float") or not -np.inf < low < high < np.inf
        ]
        if wrong:
            raise DataError(
                f"A scale of pictures is for integer or float and goes from a lower to a higher number; got {self.scales}."
            )

    @property
    def picture_columns(self) -> tuple[str, ...]:
        """The column that names the pictures, if they come in a table."""
        return () if self.column is None else (self.column,)

    def transform(self, source: Any) -> dict[str, NDArray[Any]]:
        """Encode picture files (paths) or their contents (bytes), or a table with the column that names them.

        An empty cell of a table is a row without a picture: its picture is all background.

        Raises:
            DataError: Naming every picture that is missing, truncated, not a picture, or has too many pixels; or if the table
                lacks the column.
        """
        return self.transform_files(self._items(source))

    def transform_batches(self, batches: Iterable[Any]) -> Iterator[dict[str, NDArray[Any]]]:
        """Encode batch after batch; from a picture that cannot be decoded on, only check, so that one error names all of them.

        Raises:
            DataError: At the end, as :meth:`transform` does.
        """
        problems: list[PictureError] = []
        count = 0
        for batch in batches:
            pictures, found = self._encode(self._items(batch))
            problems += found
            count += len(pictures)
            # After the first fault nothing is yielded, but the rest is still looked at, for one message about all.
            if not problems:
                yield {"image": pictures}
        if problems:
            raise self._refusal(problems, count)

    def transform_files(self, files: Sequence[str | Path | bytes | None]) -> dict[str, NDArray[Any]]:
        """Encode files, or their contents; None stands for a row without a picture.

        Raises:
            DataError: As :meth:`transform` does.
        """
        pictures, problems = self._encode(files)
        if problems:
            raise self._refusal(problems, len(pictures))
        return {"image": pictures}

    def blank(self) -> NDArray[np.uint8]:
        """Return the picture of a row that has none, ``[S, S, 3]``: all background."""
        return np.broadcast_to(np.array(self.background, dtype=np.uint8), (self.size, self.size, 3))

    def _items(self, source: Any) -> list[str | Path | bytes | None]:
        if not hasattr(source, "columns"):
            return list(source)
        if self.column is None:
            raise DataError("This run was trained on pictures: give a folder or a list of pictures, not a table.")
        check_names([self.column], map(str, source.columns), what="The picture column", where="the table")
        cells = source[self.column]
        found = getattr(cells, "cells", cells).tolist()
        # An empty cell is a row without a picture.
        return [cell if isinstance(cell, bytes | Path) else as_text(cell) or None for cell in found]

    def encode_one(self, item: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Return one picture, uint8 ``[S, S, 3]``. Training, prediction and serving all decode with this method.

        Args:
            item: Path or content of a file.
            max_pixels: Most pixels to decode.

        Raises:
            PictureError: In a few words: file name and reason.
        """
        with open_picture(item, max_pixels) as picture:
            return square_pixels(
                picture,
                picture_name(item),
                size=self.size,
                fit=self.fit,
                background=self.background,
                scales=self.scales,
                max_pixels=max_pixels,
            )

    def transform_readable(
        self, files: Sequence[str | Path | bytes | None], most: int
    ) -> tuple[dict[str, NDArray[Any]], dict[int, PictureError]]:
        """Encode files; up to ``most`` that cannot be read are left empty, and their rows are returned with what is wrong.

        Raises:
            DataError: If there are more.
        """
        faults: dict[int, PictureError] = {}
        pictures, problems = self._encode(files, faults)
        if len(problems) > most:
            raise self._refusal(problems, len(pictures))
        for row in faults:
            pictures[row] = self.blank()
        return {"image": pictures}, faults

    def _encode(
        self, items: Sequence[str | Path | bytes | None], faults: dict[int, PictureError] | None = None
    ) -> tuple[NDArray[np.uint8], list[PictureError]]:
        pictures = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)
        problems: list[PictureError] = []
        for index, item in enumerate(items):
            try:
                # The array is made beforehand: a list of pictures would need the memory twice.
                pictures[index] = self.blank() if item is None else self.encode_one(item)
            except PictureError as error:
                problems.append(error)
                if faults is not None:
                    faults[index] = error
        return pictures, problems

    def _refusal(self, problems: Sequence[PictureError], count: int) -> DataError:
        remedy = (
            "Allowed are whole PNG, JPEG, WebP, GIF, BMP or TIFF files. Replace these files, or remove them and their labels."
        )
        if any(problem.too_large for problem in problems):
            remedy += f" Make too large ones smaller: the model sees {self.size} x {self.size} pixels of each."
        return DataError(f"{len(problems)} of {count} pictures cannot be decoded: {short_list(problems, 20)}. {remedy}")

    def sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves."""
        return {"image_size": self.size}

    def state(self) -> dict[str, Any]:
        """Return the JSON state; ``column`` and ``scales`` are in it only if there are any."""
        state = {"kind": self.kind, "version": 1, "size": self.size, "fit": self.fit, "background": list(self.background)}
        state |= {"column": self.column} if self.column is not None else {}
        return state | ({"scales": {kind: list(pair) for kind, pair in self.scales.items()}} if self.scales else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ImageEncoder:
        """Restore from :meth:`state`."""
        return cls(
            int(state["size"]),
            fit=state.get("fit", "pad"),
            background=state.get("background", (255, 255, 255)),
            scales=state.get("scales"),
            column=state.get("column"),
        )
