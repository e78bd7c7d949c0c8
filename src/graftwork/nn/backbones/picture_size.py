"""Pictures of any size at the size that a backbone works at."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["resized"]


def resized(pictures: Tensor, size: int) -> Tensor:
    """Return float pictures ``[B, C, S, S]`` as ``[B, C, size, size]``.

    Much larger ones are averaged down by a whole factor first: bilinear weights alone would skip pixels.
    """
    factor = min(pictures.shape[-1], pictures.shape[-2]) // size
    if factor > 1:
        pictures = F.avg_pool2d(pictures, factor)
    if pictures.shape[-1] != size or pictures.shape[-2] != size:
        pictures = F.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)
    return pictures
