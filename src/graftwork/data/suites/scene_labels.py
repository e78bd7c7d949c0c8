"""Labels of scenes that follow from which body each pixel sees: edges, ways to the centres of bodies, and labels of whole
pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["centre_offsets", "occlusion_edges", "picture_labels"]

Array = NDArray[Any]
FIRST_BODY = 2
"""Instances below are floor and wall."""
FAR = 1000.0
"""Farther away than anything: floor and wall count as behind the bodies that stand on and before them."""


def occlusion_edges(instance: Array, depth: Array) -> Array:
    """Return which pixels lie on the outline of what they see, int64 0 or 1, ``[N, H, W]``.

    An edge parts two instances (bodies are convex, so that depth jumps nowhere else) and is one pixel wide. As an outline
    belongs to the thing in front, it belongs to the nearer of two bodies, to a body where that meets floor or wall, and to the
    floor where that meets the wall.

    Args:
        instance: What each pixel sees, int64 ``[N, H, W]``.
        depth: Distance, ``[N, 1, H, W]``.
    """
    found = np.zeros(instance.shape, dtype=bool)
    distance = np.where(instance < FIRST_BODY, depth[:, 0] + FAR, depth[:, 0])
    for axis in (1, 2):
        steps = instance.shape[axis] - 1
        # Neighbours along this axis: one slice is shifted by one against the other.
        first = (slice(None),) * axis + (slice(0, steps),)
        second = (slice(None),) * axis + (slice(1, steps + 1),)
        parted = instance[first] != instance[second]
        # At equal distance both pixels count.
        found[first] |= parted & (distance[first] <= distance[second])
        found[second] |= parted & (distance[second] <= distance[first])
    return found.astype(np.int64)


def centre_offsets(instance: Array) -> Array:
    """Return the way from each pixel to the centre of what is seen of its body, float32 ``[N, 2, H, W]``: right and down, in
    picture sides.

    Pixels whose offsets point to one place are one body: this is how a network that looks at single pixels can tell bodies
    apart. Floor and wall have no centre; their pixels are NaN, missing. (Cheng et al., "Panoptic-DeepLab", CVPR 2020)

    Args:
        instance: What each pixel sees, int64 ``[N, H, W]``.
    """
    count, height, width = instance.shape
    size = max(height, width)
    offsets = np.full((count, 2, height, width), np.nan, dtype=np.float32)
    down, right = np.indices((height, width))
    for index in range(FIRST_BODY, int(instance.max(initial=0)) + 1):
        seen = instance == index
        area = np.maximum(seen.sum(axis=(1, 2)), 1)
        for axis, place in enumerate((right, down)):
            centre = (seen * place).sum(axis=(1, 2)) / area
            # In sides of the picture, so that sizes compare.
            offsets[:, axis] = np.where(seen, (centre[:, None, None] - place) / size, offsets[:, axis])
    return offsets


def picture_labels(instance: Array, kind: Array) -> tuple[Array, Array]:
    """Return the kind of the body that covers most pixels, and the number of bodies in view less one, int64 ``[N]`` each.

    Both are -1, missing, where all bodies are out of view.

    Args:
        instance: What each pixel sees, int64 ``[N, H, W]``.
        kind: Kind of the body in each slot, ``[N, M]``.
    """
    area = np.stack([(instance == FIRST_BODY + slot).sum(axis=(1, 2)) for slot in range(kind.shape[1])], axis=1)
    main = np.take_along_axis(kind, area.argmax(axis=1)[:, None], axis=1)[:, 0]
    # No body in view: 0 - 1 is the code of a missing label.
    return np.where(area.any(axis=1), main, -1), (area > 0).sum(axis=1) - 1
