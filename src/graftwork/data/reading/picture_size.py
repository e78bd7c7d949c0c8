"""At which size pictures of any sizes are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graftwork.core.errors import DataError
from graftwork.data.encoders.picture_files import open_picture

__all__ = ["default_image_size"]

_MAX_PICTURE_BYTES = 1_500_000_000
_MAX_LARGE_PICTURE_BYTES = 600_000_000
"""The same for more than 128 pixels, which pretrained backbones alone make use of."""


def default_image_size(images: Sequence[Path]) -> int:
    """Return the largest of 32, 64, 96, 128, 160 and 224 that the shorter sides of up to 64 pictures reach, as long as all pictures
    fit into 1.5 GB (600 MB for more than 128 pixels)."""
    sides = []
    # Evenly over the list: files are sorted, and folders often differ in size.
    for path in images[:: max(1, len(images) // 64)][:64]:
        try:
            with open_picture(path) as picture:
                sides.append(min(picture.size))
        except DataError:
            continue  # named by the encoder, together with all other faulty files
    middle = float(np.median(sides)) if sides else 64.0
    fitting = [
        size
        for size in (32, 64, 96, 128, 160, 224)
        if size <= max(middle, 32)
        and len(images) * size * size * 3 <= (_MAX_PICTURE_BYTES if size <= 128 else _MAX_LARGE_PICTURE_BYTES)
    ]
    return max(fitting, default=32)
