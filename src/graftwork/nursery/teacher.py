"""What a frozen EfficientNet-Lite0 makes of the pictures: the targets of the students, computed once and kept in half precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.core.files import cache_folder
from graftwork.data.array_cache import cached_arrays
from graftwork.nn.backbones.lite0 import build_lite0
from graftwork.nn.backbones.timm_bridge import TimmBackbone

__all__ = ["MAP_WIDTH", "POOLED_WIDTH", "SIDE", "SIZE", "teacher_targets"]

SIDE = 8
"""Height and width of the map."""
POOLED_WIDTH, MAP_WIDTH = 1280, 112
SIZE = 128
"""Pixels at which the teacher sees the pictures."""
PART = 2000
"""Pictures whose targets are kept together."""
BATCH = 50
_STAGE = 3
"""Stage whose map is taken: an eighth of the picture's 64 pixels."""
_VERSION = 1
"""Raised whenever equal arguments would give other targets, so that caches of older versions are not used."""

Array = NDArray[Any]


def teacher_targets(
    image: Array, *, cache: str | Path | None = None, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, Array]:
    """Return the targets, from the cache or computed now and kept, in parts.

    Args:
        image: uint8 ``[N, S, S, 3]``.
        cache: Folder of the cache; the user's cache by default.
        on_progress: Called after each part with the number of finished pictures and of all.

    Returns:
        ``pooled`` float16 ``[N, 1280]``, the pooled features; ``map`` float16 ``[N, 64, 112]``, the states of 8 x 8 places.

    Raises:
        MissingDependencyError: If timm or the package with the weights is not installed.
    """
    teacher = build_lite0(size=SIZE).eval()
    folder = Path(cache) if cache is not None else cache_folder("nursery")
    own = f"{_VERSION} {teacher.fingerprint()} {torch.__version__}"
    parts = []
    for start in range(0, len(image), PART):
        rows = np.ascontiguousarray(image[start : start + PART])
        key = hashlib.sha256(f"{own} {rows.shape} {hashlib.sha256(rows.data).hexdigest()}".encode()).hexdigest()[:24]
        parts.append(cached_arrays(folder, f"targets-{key}", partial(_targets, teacher, rows)))
        if on_progress is not None:
            on_progress(start + len(rows), len(image))
    return {name: np.concatenate([part[name] for part in parts]) for name in ("pooled", "map")}


def _targets(teacher: TimmBackbone, image: Array) -> dict[str, Array]:
    pooled = np.empty((len(image), POOLED_WIDTH), np.float16)
    places = np.empty((len(image), SIDE**2, MAP_WIDTH), np.float16)
    with torch.inference_mode():
        for start in range(0, len(image), BATCH):
            part = slice(start, start + BATCH)
            inputs = teacher.prepare({"image": torch.from_numpy(image[part])})
            last, maps = teacher.model.forward_intermediates(inputs, indices=[_STAGE], output_fmt="NCHW")
            pooled[part] = teacher.arrange(last).numpy()
            places[part] = maps[0].flatten(2).transpose(1, 2).numpy()
    return {"pooled": pooled, "map": places}
