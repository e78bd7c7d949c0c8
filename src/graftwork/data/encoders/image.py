"""ImageEncoder: picture files as square uint8 RGB arrays, with every undecodable file named at once."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.optional import require
from graftwork.data.encoders.base import Encoder
from graftwork.data.names import short_list
from graftwork.data.reading.sniff import describe_content

__all__ = ["IMAGE_ENDINGS", "ImageEncoder", "list_images"]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded (decompression bombs)."""
_FITS = ("pad", "stretch", "crop")


def list_images(folder: str | Path) -> list[Path]:
    """Return all picture files below ``folder``, sorted by path.

    Raises:
        DataError: If there are none.
    """
    folder = Path(folder)
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file() and not path.name.startswith(".")
    )
    if not found:
        raise DataError(
            f"{folder} holds no pictures. Endings read: {', '.join(IMAGE_ENDINGS)}. Give the folder that holds the picture files."
        )
    return found


class ImageEncoder(Encoder):
    """Pictures become ``image`` uint8 ``[N, S, S, 3]``: upright by their EXIF tag, transparency over a background, made square, resized.

    Args:
        size: Side ``S`` in pixels, from 8 to 1024.
        fit: ``pad`` keeps the whole picture with background at the sides, ``crop`` cuts the centre square, ``stretch`` distorts.
        background: RGB behind transparent pixels and at padded sides, 0 to 255 each.
    """

    kind: ClassVar[str] = "image"

    def __init__(self, size: int, *, fit: str = "pad", background: Sequence[int] = (255, 255, 255)) -> None:
        if not 8 <= size <= 1024:
            raise DataError(f"The image size must be from 8 to 1024 pixels; got {size}. Typical sizes are 32, 64, 128 and 224.")
        if fit not in _FITS:
            raise DataError(f"The picture fit must be one of {', '.join(_FITS)}; got {fit!r}.")
        self.size = int(size)
        self.fit = fit
        self.background = (int(background[0]), int(background[1]), int(background[2]))

    def transform(self, source: Iterable[str | Path | bytes]) -> dict[str, NDArray[Any]]:
        """Encode picture files (paths) or their contents (bytes).

        Raises:
            DataError: Naming every picture that is missing, truncated, not a picture, or has more than 100 megapixels.
        """
        items = list(source)
        pictures = np.zeros((len(items), self.size, self.size, 3), dtype=np.uint8)
        problems: list[str] = []
        for index, item in enumerate(items):
            try:
                pictures[index] = self.encode_one(item)
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError(
                f"{len(problems)} of {len(items)} pictures cannot be decoded: {short_list(problems, 20)}. "
                "Allowed are whole PNG, JPEG, WebP, GIF, BMP or TIFF files. Replace these files, or remove them and their labels."
            )
        return {"image": pictures}

    def encode_one(self, item: str | Path | bytes) -> NDArray[np.uint8]:
        """Return one picture, uint8 ``[S, S, 3]``.

        Raises:
            DataError: In a few words: file name and reason.
        """
        images = require("PIL.Image", extra="vision", purpose="Reading pictures")
        operations = require("PIL.ImageOps", extra="vision", purpose="Reading pictures")
        name = "picture" if isinstance(item, bytes) else Path(item).name
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the limit below is stricter than Pillow's warning
                picture = images.open(io.BytesIO(item) if isinstance(item, bytes) else item)
                if picture.width * picture.height > _MAX_PIXELS:
                    raise DataError(f"{name} ({picture.width} x {picture.height} pixels, the limit is {_MAX_PIXELS:,})")
                picture = operations.exif_transpose(picture)
                return self._squared(picture, images)
        except DataError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{name} (no such file)") from error
        except images.DecompressionBombError as error:
            raise DataError(f"{name} (more than {_MAX_PIXELS:,} pixels)") from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise DataError(f"{name} ({_reason(item, error)})") from error

    def _squared(self, picture: Any, images: Any) -> NDArray[np.uint8]:
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            canvas = images.new("RGBA", layer.size, (*self.background, 255))
            canvas.alpha_composite(layer)
            picture = canvas.convert("RGB")
        elif picture.mode in ("I;16", "I;16B", "I", "F"):
            values = np.asarray(picture, dtype=np.float64)
            top = 65535.0 if values.max(initial=0.0) > 255.0 else 255.0
            picture = images.fromarray(np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
        else:
            picture = picture.convert("RGB")
        width, height = picture.size
        if self.fit == "crop" and width != height:
            side = min(width, height)
            left, top_edge = (width - side) // 2, (height - side) // 2
            picture = picture.crop((left, top_edge, left + side, top_edge + side))
        if self.fit == "pad" and width != height:
            scale = self.size / max(width, height)
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            canvas = images.new("RGB", (self.size, self.size), self.background)
            canvas.paste(self._resized(picture, inner, images), ((self.size - inner[0]) // 2, (self.size - inner[1]) // 2))
            return np.asarray(canvas, dtype=np.uint8)
        return np.asarray(self._resized(picture, (self.size, self.size), images), dtype=np.uint8)

    @staticmethod
    def _resized(picture: Any, size: tuple[int, int], images: Any) -> Any:
        return picture if picture.size == size else picture.resize(size, images.Resampling.BILINEAR, reducing_gap=3.0)

    def input_sizes(self) -> dict[str, Any]:
        """Return what backbones need to size themselves."""
        return {"image_size": self.size}

    def state(self) -> dict[str, Any]:
        """Return the JSON state."""
        return {"kind": self.kind, "version": 1, "size": self.size, "fit": self.fit, "background": list(self.background)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ImageEncoder:
        """Restore from :meth:`state`."""
        return cls(int(state["size"]), fit=state.get("fit", "pad"), background=state.get("background", (255, 255, 255)))


def _reason(item: str | Path | bytes, error: Exception) -> str:
    """Return in a few words why a picture cannot be decoded."""
    if not isinstance(item, bytes) and Path(item).is_file():
        if Path(item).stat().st_size == 0:
            return "zero bytes"
        if "picture" in (describe_content(Path(item)) or ""):
            return "truncated or damaged"
    return "truncated or damaged" if "truncated" in str(error).lower() else "not a readable picture"
