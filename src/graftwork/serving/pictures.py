"""Pictures of a request: base64 in JSON or uploaded files, refused before they are decoded if they are too large. No torch."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.serving.problems import Problem, RequestError
from graftwork.serving.reading import RowReader

__all__ = ["PictureReader"]

_FORMATS = "a whole PNG, JPEG, WebP, GIF, BMP or TIFF picture"


class PictureReader(RowReader):
    """Pictures in base64 (a ``data:`` address is taken too), or their bytes.

    Args:
        encoder: The run's picture encoder.
        max_rows: Most pictures of one request.
        max_pixels: Most pixels of all pictures of one request together, before they are resized.
    """

    keys = ("images",)

    def __init__(self, encoder: Any, max_rows: int, max_pixels: int) -> None:
        super().__init__(encoder, max_rows)
        self.max_pixels = max_pixels

    def read_one(self, key: str, place: str, item: Any, problems: list[Problem]) -> Any:
        """Return the bytes of a picture."""
        if isinstance(item, bytes):
            return item
        if not isinstance(item, str):
            problems.append(Problem(place, item, f"{_FORMATS} in base64"))
            return b""
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
        """
        pixels = 0
        for index, content in enumerate(rows):
            pixels += _pixels(content)
            if pixels > self.max_pixels:
                raise RequestError(
                    413,
                    "The pictures are too large.",
                    Problem(f"images[{index}]", f"{pixels} pixels so far", f"at most {self.max_pixels} pixels in one request"),
                )
        problems: list[Problem] = []
        decoded: list[Any] = []
        for index, content in enumerate(rows):
            try:
                decoded.append(self.encoder.encode_one(content))  # type: ignore[attr-defined]
            except DataError as error:
                problems.append(Problem(f"images[{index}]", f"{len(content)} bytes: {error}", _FORMATS))
            except Exception as error:  # decoders of rare formats fail in ways of their own
                problems.append(Problem(f"images[{index}]", f"{len(content)} bytes: {type(error).__name__}", _FORMATS))
        if problems:
            raise RequestError(422, f"{len(problems)} of {len(rows)} pictures cannot be decoded.", *problems[:20])
        return decoded

    def blank(self) -> list[Any]:
        """Return a black picture."""
        size = self.encoder.input_sizes()["image_size"]
        return [np.zeros((size, size, 3), dtype=np.uint8)]

    def encode(self, rows: Sequence[Any]) -> dict[str, Any]:
        """Return the pictures in one array."""
        return {"image": np.stack(rows)}

    def item_schemas(self) -> dict[str, dict[str, Any]]:
        """Return the schema of one picture in JSON."""
        return {"images": {"type": "string", "format": "picture-base64", "contentEncoding": "base64", "description": _FORMATS}}

    def inputs(self) -> list[dict[str, Any]]:
        """Return one entry: the picture."""
        return [{"name": "image", "type": "image", "size": self.encoder.input_sizes()["image_size"]}]


def _pixels(content: bytes) -> int:
    """Return the pixels that the head of a file promises; 0 if it is no picture, which decoding then says."""
    images = require("PIL.Image", extra="serve", purpose="Reading pictures")
    try:
        with images.open(io.BytesIO(content)) as picture:
            return int(picture.width * picture.height)
    except images.DecompressionBombError:
        return 1 << 40
    except Exception:  # any fault of a decoder; decoding names it
        return 0
