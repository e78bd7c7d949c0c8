"""Features of a frozen backbone, computed once for all runs: heads then train on a table, at next to no cost."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork.data.array_cache import NewArray, cached_arrays, filled_arrays
from graftwork.interfaces.backbone import Backbone

Array = NDArray[Any]

__all__ = ["cached_features", "feature_key"]

_TEXT = ("token_ids", "attention_mask")
_BLOCK = 2**25
"""Bytes of inputs that are hashed at a time: inputs may be mapped from files, or rows picked from such."""
_VERSION = 1
"""Raised whenever the same backbone and inputs would give other features."""


def feature_key(backbone: Backbone, inputs: Mapping[str, Array]) -> str:
    """Return the name under which the features are kept: a SHA-256 over the backbone's fingerprint, the kind of an accelerator that it
    is on, and all its inputs."""
    # What an accelerator computes differs by rounding, and a run on the CPU must not depend on an earlier one elsewhere.
    place = "" if _device(backbone).type == "cpu" else f" {_device(backbone).type}"
    digest = hashlib.sha256(f"{_VERSION} {type(backbone).__name__} {backbone.fingerprint()}{place}".encode())
    for name in sorted(inputs):
        array = inputs[name]
        # The same bytes in another shape or type are other inputs.
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        rows = max(1, _BLOCK // max(1, array.dtype.itemsize * math.prod(array.shape[1:])))
        for start in range(0, len(array), rows):
            digest.update(np.ascontiguousarray(array[start : start + rows]).reshape(-1).view(np.uint8).data)
    # 128 bits tell any two apart; file names stay short.
    return digest.hexdigest()[:32]


def cached_features(
    backbone: Backbone,
    inputs: Mapping[str, Array],
    cache_folder: str | Path,
    batch_size: int = 64,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the features of all rows, from the store or computed now and kept.

    Safe when several processes ask at once: one computes, the others wait for it and read. A damaged file is computed again,
    with a warning. The backbone computes in evaluation mode and is left in the mode that it was in.

    Args:
        backbone: The backbone, its weights as they are.
        inputs: The arrays that the backbone reads, one row per row; read in blocks, so that they need not fit into memory.
        cache_folder: Folder of the store; created if needed.
        batch_size: Rows per forward pass. It is no part of the key: it changes features by rounding errors at most.
        on_progress: Called after each batch with the number of finished rows and of all rows; not called if the store has them.

    Returns:
        Read-only float32 array, mapped from its file, ``[N, width]`` for backbones with vector features (``[N, ...]`` as declared
        for others).

    Raises:
        ValueError: If the batch size is below 1.
        FloatingPointError: If a feature is not finite.
        StorageError: If the store cannot be written.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1; got {batch_size!r}.")
    key = f"features-{feature_key(backbone, inputs)}"
    if not len(next(iter(inputs.values()))):
        return cached_arrays(cache_folder, key, lambda: {"features": np.zeros((0,), dtype=np.float32)})["features"]
    return filled_arrays(cache_folder, key, lambda new: _compute(backbone, inputs, batch_size, on_progress, new))["features"]


def _device(backbone: Backbone) -> torch.device:
    return next((parameter.device for parameter in backbone.parameters()), torch.device("cpu"))


def _text_lengths(inputs: Mapping[str, Array]) -> NDArray[np.int64]:
    """Return how many tokens of each row the backbone attends to, so that texts of like length are read together and their
    padding is not; 0 for rows that are no texts, or texts that are padded in front."""
    size = len(next(iter(inputs.values())))
    if set(inputs) != set(_TEXT):
        return np.zeros(size, dtype=np.int64)
    mask = np.asarray(inputs["attention_mask"])
    lengths = mask.sum(axis=1, dtype=np.int64)
    is_plain = bool((mask == (np.arange(mask.shape[1]) < lengths[:, None])).all())
    return lengths if is_plain else np.zeros(size, dtype=np.int64)


def _compute(
    backbone: Backbone,
    inputs: Mapping[str, Array],
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
    new: NewArray,
) -> None:
    size = len(next(iter(inputs.values())))
    device = _device(backbone)
    # Mode by mode: `backbone.train()` afterwards would also wake parts that are kept in evaluation mode.
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    bad = 0
    is_vector = backbone.feature_shape.layout == "vector"
    lengths = _text_lengths(inputs) if is_vector else np.zeros(size, dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    try:
        with torch.inference_mode():
            for start in range(0, size, batch_size):
                rows = order[start : start + batch_size]
                # Copies: stores hand out read-only arrays, which torch must not wrap.
                part = {name: torch.from_numpy(np.array(array[rows])).to(device) for name, array in inputs.items()}
                if lengths.any():
                    longest = max(1, int(lengths[rows[-1]]))
                    part |= {name: part[name][:, :longest].contiguous() for name in _TEXT}
                found = backbone(part).float().cpu().numpy()
                if start == 0:
                    features = new("features", (size, *found.shape[1:]), np.float32)
                features[rows] = found
                bad += int((~np.isfinite(found.reshape(len(found), -1))).any(axis=1).sum())
                if on_progress is not None:
                    on_progress(min(start + batch_size, size), size)
    finally:
        for module, mode in modes:
            module.training = mode
    if bad:
        raise FloatingPointError(
            f"{type(backbone).__name__} gives features that are not finite for {bad} of {size} rows. "
            f"Check the weights and inputs."
        )
