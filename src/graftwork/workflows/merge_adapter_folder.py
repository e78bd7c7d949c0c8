"""The result of adapters that were merged with adapters, as an adapter folder of peft."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.folders import check_folder
from graftwork.core.model_folder import ADAPTER_NAMES
from graftwork.core.scratch import temporary_folder
from graftwork.core.tensor_files import TensorFile, TensorSource, write_tensors
from graftwork.interfaces.merger import Merger
from graftwork.workflows.merge_changes import Change
from graftwork.workflows.merge_checks import check_folder_name, check_out
from graftwork.workflows.merge_folder import MERGE_KIND, result_folder

if TYPE_CHECKING:
    from graftwork.nn.delta_parts import LowRank

__all__ = ["check_folder_out", "chosen_rank", "write_folder"]

Shape = tuple[int, ...]


def chosen_rank(rank: int | None, factors: Mapping[str, LowRank], dense: Sequence[str], changes: Sequence[Change]) -> int:
    """Return the largest rank that the folder may have.

    Args:
        rank: What was asked for; None for the default.
        factors: Tensors whose sum of factors is exact.
        dense: Those that have none.
        changes: What was merged.

    Raises:
        ConfigError: If nothing says what rank to take.
    """
    from graftwork.methods.tuning.peft_low_rank import largest_rank

    if rank is not None:
        return rank
    largest = largest_rank([change.delta.parts for change in changes])
    if dense and not largest:
        raise ConfigError(
            "None of these changes is low rank, so nothing says what rank an adapter folder should have. Give --rank, or write a delta file: "
            "give --out a name that ends in .safetensors."
        )
    exact = max((len(part.down) for part in factors.values()), default=0)
    return max(largest, exact)


def write_folder(
    out: Path,
    factors: Mapping[str, LowRank],
    shapes: Mapping[str, Shape],
    values: Iterable[tuple[str, Any]],
    merger: Merger,
    changes: Sequence[Change],
    rank: int,
    metadata: Callable[[], Mapping[str, str]],
) -> list[str]:
    """Write the folder.

    Args:
        out: The folder: absent, empty, or of an earlier merge.
        factors: Changes with factors.
        shapes: Shape of each change that has none.
        values: Those changes.
        merger: Asked for corrections once all values were taken.
        changes: What was merged.
        rank: See :func:`chosen_rank`.
        metadata: Returns the lineage; it may wait for hashes.

    Returns:
        Notes.

    Raises:
        ConfigError: If the folder is not ours, or a change cannot be held by an adapter of peft.
        DataError: If a change of which an approximation is needed holds NaN or infinity.
        StorageError: If it cannot be written.
    """
    import torch

    from graftwork.methods.tuning.peft_delta import delta_to_peft
    from graftwork.methods.tuning.peft_low_rank import Truncation
    from graftwork.nn.weight_delta import WeightDelta

    names = {change.base_model for change in changes}
    found = Truncation(rank)
    with result_folder(out, ADAPTER_NAMES) as notes:
        for name, part in factors.items():
            # Factors of no higher rank are written as they are.
            if len(part.down) > rank:
                _check_finite(name, bool(torch.isfinite(part.up).all() and torch.isfinite(part.down).all()))
            found.add(name, part)
        with temporary_folder(out / "dense") as scratch:
            for name, array in _settled(scratch / "dense.safetensors", shapes, values, merger):
                _check_finite(name, bool(np.isfinite(array).all()))
                found.add(name, torch.from_numpy(np.array(array)))
        delta = WeightDelta(found.parts, {name: torch.Size([len(p.up), *p.down.shape[1:]]) for name, p in found.parts.items()})
        delta_to_peft(delta, out, base_model=names.pop() if len(names) == 1 else "", metadata=metadata())
        # Of NaN no share is lost; it is told apart from this.
        notes += [found.note()] if math.isfinite(found.whole) and found.note() else []
    return notes


def _check_finite(name: str, is_finite: bool) -> None:
    if not is_finite:
        raise DataError(
            f"The merged change of {name!r} holds NaN or infinity, so it has no best approximation of low rank. Leave the model with these "
            "values out; a delta file tells which one it is: give --out a name that ends in .safetensors."
        )


def check_folder_out(out: Path, sources: Sequence[TensorSource], paths: Sequence[Path]) -> Path:
    """Return the folder; refuse, before anything is computed, one that is not ours or is read.

    Raises:
        ConfigError: If it is.
    """
    check_folder_name(out)
    check_folder(out, MERGE_KIND)
    return check_out(out / ADAPTER_NAMES[1], sources, paths, is_claimed=True).parent


def _settled(
    file: Path, shapes: Mapping[str, Shape], values: Iterable[tuple[str, Any]], merger: Merger
) -> Iterator[tuple[str, Any]]:
    """Yield the values with the merger's corrections, which it knows only after the last tensor: so they wait in a file."""
    if not shapes:
        return

    def corrections() -> Iterator[tuple[str, Any, Any]]:
        yield from merger.corrections()

    write_tensors(file, {name: ("F32", shape) for name, shape in shapes.items()}, values, None, corrections())
    source = TensorFile(file)
    for name in source:
        yield name, source[name]
        source.release(name)
