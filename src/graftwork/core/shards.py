"""A model in several files of limited size and an index of them, named as transformers names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.files import write_json
from graftwork.core.model_folder import INDEX_NAME, MODEL_NAME
from graftwork.core.tensor_files import write_shards
from graftwork.core.tensor_header import BITS

__all__ = ["split_layout", "write_model"]

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
_MOST = 400  # of the 1024 descriptors that a process usually has, two for each


def split_layout(layout: Layout, limit: int | None) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    """Return what goes into each file, ``{file name: layout}``: tensors in order, a new file before one would be too large.

    Args:
        layout: ``{name: (stored type, shape)}`` of all tensors.
        limit: Largest number of bytes of a file's tensors; a larger tensor has a file of its own. None is no limit.

    Raises:
        ConfigError: If there would be very many files, which are all open at once.

    Example:
        >>> parts = split_layout({"a": ("F32", (4,)), "b": ("F32", (4,)), "c": ("F16", (1,))}, 20)
        >>> {file: list(part) for file, part in parts.items()}
        {'model-00001-of-00002.safetensors': ['a'], 'model-00002-of-00002.safetensors': ['b', 'c']}
    """
    parts: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    used = 0
    for name, (dtype, shape) in layout.items():
        size = math.prod(shape) * BITS[dtype] // 8
        if limit is not None and parts[-1] and used + size > limit:
            parts.append({})
            used = 0
        parts[-1][name] = (dtype, shape)
        used += size
    if len(parts) == 1:
        return {MODEL_NAME: parts[0]}
    if len(parts) > _MOST:
        raise ConfigError(
            f"A limit of {limit:,} bytes makes {len(parts):,} files of weights; at most {_MOST} are written. Raise --shard-size."
        )
    return {f"model-{number:05}-of-{len(parts):05}.safetensors": part for number, part in enumerate(parts, start=1)}


def write_model(
    folder: Path,
    parts: Mapping[str, Layout],
    tensors: Iterable[tuple[str, Any]],
    metadata: Mapping[str, str] | None = None,
    final_metadata: Callable[[], Mapping[str, str]] | None = None,
    corrections: Iterable[tuple[str, Any, Any]] = (),
) -> None:
    """Write the files that :func:`split_layout` planned, and the index if there are several; the index comes last.

    Args:
        folder: Where to. ``model.safetensors`` of an earlier model counts before an index: it is removed before the index is written.
        parts: What goes into each file.
        tensors: As for :func:`graftwork.core.tensor_files.write_shards`.
        metadata: See there.
        final_metadata: See there.
        corrections: See there.

    Raises:
        StorageError: If the disk is full; older files stay whole.
    """
    write_shards({folder / name: part for name, part in parts.items()}, tensors, metadata, corrections, final_metadata)
    if len(parts) == 1:
        return
    total = sum(math.prod(shape) * BITS[dtype] // 8 for part in parts.values() for dtype, shape in part.values())
    listed = {name: file for file, part in parts.items() for name in part}
    (folder / MODEL_NAME).unlink(missing_ok=True)
    write_json(folder / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": dict(sorted(listed.items()))})
