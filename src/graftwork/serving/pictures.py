"""Pictures of a request: base64 in JSON or uploaded files, refused before they are decoded if they are too large. No torch."""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import PictureError, open_picture
from graftwork.serving.limits import ServeLimits
from graftwork.serving.problems import MOST_PROBLEMS, Problem, RequestError, hint
from graftwork.serving.reading import RowReader

__all__ = ["PictureReader"]

_FORMATS = "a whole PNG, JPEG, WebP, GIF, BMP or TIFF picture"


class _PixelBudget:
    """Lets so many pixels be decoded at once, in whatever threads; the others wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._in_work = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for a picture, and keep it while the block runs."""
        with self._changed:
            # One alone always goes, however large it is.
            self._changed.wait_for(lambda: not self._in_work or self._in_work + pixels <= self._most)
            self._in_work += pixels
        try:
            yield
        finally:
            with self._changed:
                self._in_work -= pixels
                self._changed.notify_all()


class PictureReader(RowReader):
    """Pictures in base64 (a ``data:`` address is taken too), or their bytes.

    Args:
        encoder: The run's picture encoder.
        limits: Of requests.
    """

    keys = ("images",)
    encoder: ImageEncoder

    def __init__(self, encoder: ImageEncoder, limits: ServeLimits) -> None:
        super().__init__(encoder, limits)
        self.max_pixels = limits.max_pixels
        self.max_picture_pixels = limits.max_picture_pixels
        self._budget = _PixelBudget(limits.max_pixels)
        self._column = encoder.column

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return the bytes of a picture; of a row, those in its column, None if it has no picture."""
        if key == "rows":
            name = str(self._column)
            if name not in item:
                problems.append(Problem(f"{place}.{name}", None, f"a picture in base64, or null.{hint(name, item, problems)}"))
                return None
            place, item = f"{place}.{name}", item[name]
            if item is None:
                return None
        if isinstance(item, bytes):
            return item
        if not isinstance(item, str):
            problems.append(Problem(place, item, f"{_FORMATS} in base64"))
            return b""
        # Browsers hand out pictures as `data:image/png;base64,...`.
        text = item.partition(",")[2] if item.startswith("data:") else item
        try:
            return base64.b64decode(text.encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            problems.append(Problem(place, item, f"{_FORMATS} in base64"))
            return b""

    def finish(self, rows: list[Any]) -> list[Any]:
        """Return each picture, given in bytes, as ``[S, S, 3]`` uint8.

        Raises:
            RequestError: 413 if there are too many pixels, 422 naming every picture that cannot be decoded.

        Pictures of all requests together are decoded within ``max_pixels`` at once: memory stays bounded, however many ask.
        """
        # All headers first: decoding could fill the memory before the last picture is looked at.
        pixels = 0
        sizes = [0] * len(rows)
        for index, content in enumerate(rows):
            if content is None:
                continue
            sizes[index] = self._pixels(index, content)
            pixels += sizes[index]
            if pixels > self.max_pixels:
                raise RequestError(
                    413,
                    "The pictures are too large.",
                    Problem(self._place(index), f"{pixels} pixels so far", f"at most {self.max_pixels} pixels in one request"),
                )
        problems: list[Problem] = []
        decoded: list[Any] = []
        for index, content in enumerate(rows):
            if content is None:
                decoded.append(self.encoder.blank())
                continue
            try:
                # A larger JPEG is shrunk while it is decoded.
                with self._budget.of(min(sizes[index], self.max_picture_pixels)):
                    decoded.append(self.encoder.encode_one(content, max_pixels=self.max_picture_pixels))
            except PictureError as error:
                if error.too_large:  # a JPEG that stays large while it is shrunk
                    raise self._too_large(index, error) from error
                problems.append(Problem(self._place(index), f"{len(content)} bytes: {error}", _FORMATS))
        if problems:
            raise RequestError(422, f"{len(problems)} of {len(rows)} pictures cannot be decoded.", *problems[:MOST_PROBLEMS])
        return decoded

    def _pixels(self, index: int, content: bytes) -> int:
        """Return the pixels that the header of a picture promises; 0 if it is no picture, which decoding then says."""
        try:
            with open_picture(content, self.max_picture_pixels) as picture:
                return int(picture.width * picture.height)
        except PictureError as error:
            if error.too_large:
                raise self._too_large(index, error) from error
            # Not decoded yet: the second pass says what is wrong, with all other faults.
            return 0

    def _place(self, index: int) -> str:
        return f"images[{index}]" if self._column is None else f"rows[{index}].{self._column}"

    def _too_large(self, index: int, error: PictureError) -> RequestError:
        return RequestError(
            413, "A picture is too large. Send it smaller.", Problem(self._place(index), error.reason, "a smaller picture")
        )

    def blank(self) -> list[Any]:
        """Return a black picture."""
        size = self.encoder.sizes()["image_size"]
        return [np.zeros((size, size, 3), dtype=np.uint8)]

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the pictures in one array."""
        return {"image": np.stack(rows)}

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of one picture in JSON; in a row it may be null."""
        picture = {"type": "string", "format": "picture-base64", "contentEncoding": "base64", "description": _FORMATS}
        if self._column is None:
            return {"images": picture}
        cell = {"anyOf": [picture, {"type": "null"}]}
        return {"rows": {"type": "object", "required": [self._column], "properties": {self._column: cell}}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry: the picture."""
        return [{"name": self._column or "image", "type": "image", "size": self.encoder.sizes()["image_size"]}]
