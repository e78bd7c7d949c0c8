"""The result of changes that were merged with each other, as a delta file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork.core.tensor_files import write_tensors
from graftwork.interfaces.merger import Merger
from graftwork.workflows.merge_changes import DELTA_FORMAT, Change

if TYPE_CHECKING:
    from graftwork.nn.delta_parts import Part

__all__ = ["write_file"]


def write_file(
    target: Path,
    exact: Mapping[str, tuple[Part, tuple[int, ...]]],
    dense: Mapping[str, tuple[int, ...]],
    values: Iterable[tuple[str, Any]],
    merger: Merger,
    changes: Sequence[Change],
    told: Callable[[bool], Mapping[str, str]],
) -> None:
    """Write a delta file, tensor by tensor.

    Args:
        target: The file.
        exact: Changes that are kept in a form of their own (factors, rescalings), each with the shape of its tensor.
        dense: Shape of each change that has none.
        values: Those changes.
        merger: Asked for corrections once all values were taken.
        changes: What was merged; the result belongs to their base.
        told: Returns the lineage, before the merge and, with true, after it.

    Raises:
        StorageError: If it cannot be written.
    """
    from graftwork.nn.delta_parts import describe_part

    low: dict[str, Any] = {}
    parts: dict[str, Any] = {name: {"kind": "dense", "shape": list(shape)} for name, shape in dense.items()}
    for name, (part, shape) in exact.items():
        parts[name] = {**describe_part(part), "shape": list(shape)}
        low |= {f"{name}:{key}": tensor.float().contiguous().numpy() for key, tensor in part.tensors().items()}
    known = next((change.delta for change in changes if change.delta.base_fingerprint), changes[0].delta)
    facts = {
        "format": DELTA_FORMAT,
        "base_fingerprint": known.base_fingerprint,
        "base_tensors": json.dumps(dict(known.base_prints)),
        "parts": json.dumps(parts),
        "lineage": json.dumps({"merged": [dict(change.delta.lineage) for change in changes]}, default=str),
    }
    layout = {key: ("F32", tuple(array.shape)) for key, array in low.items()}
    layout |= {f"{name}:values": ("F32", shape) for name, shape in dense.items()}

    def tensors() -> Iterator[tuple[str, Any]]:
        yield from low.items()
        for name, array in values:
            yield f"{name}:values", array

    def corrections() -> Iterator[tuple[str, Any, Any]]:
        for name, indices, array in merger.corrections():
            yield f"{name}:values", indices, array

    write_tensors(target, layout, tensors(), {**told(False), **facts}, corrections(), lambda: {**told(True), **facts})
