"""Writes the result of a document: a model folder, or a file of its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import remove_leftovers
from graftwork.core.model_folder import INDEX_NAME
from graftwork.core.shards import split_layout, write_model
from graftwork.core.tensor_files import write_tensors
from graftwork.workflows.merge_checks import name_not_finite, note_statistics
from graftwork.workflows.merge_folder import COPY_NAME, result_folder
from graftwork.workflows.mergekit.combine import check_integers, merged_tensors
from graftwork.workflows.mergekit.methods import METHODS
from graftwork.workflows.mergekit.plan import Plan

__all__ = ["Metadata", "Written", "write_result"]

Metadata = Callable[[bool], Mapping[str, str]]
"""Returns the text for the header; called with whether to wait for what is still computed, which takes the place of zeros then."""
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What is to be said of a result that was written."""

    notes: tuple[str, ...]
    not_finite: tuple[str, ...]
    """Tensors that hold NaN or infinity, with the first model that brought it in."""


def write_result(
    plan: Plan,
    out: Path,
    metadata: Metadata | None = None,
    *,
    is_file: bool = False,
    shard_size: int | None = None,
    waits: bool = False,
    on_progress: Progress | None = None,
) -> Written:
    """Merge a document and write its result; what is read must be there by now.

    Args:
        plan: The document.
        out: A folder: absent, empty, or of an earlier merge; or a file.
        metadata: Text for the header besides the format; None for results that are read by other documents only.
        is_file: Whether only the weights are written.
        shard_size: Largest number of bytes of a file of weights in a folder; None writes one.
        waits: Whether the text is final only after the last tensor.
        on_progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: If the folder is not ours.
        DataError: If integers differ between the models.
        StorageError: If it cannot be written.
    """
    check_integers(plan.tensors, plan.models)
    not_finite: list[str] = []

    def header(final: bool) -> dict[str, str]:
        return {"format": "pt", **(metadata(final) if metadata else {})}

    complete = (lambda: header(True)) if waits else None
    tensors = _watched(plan, not_finite, on_progress)
    if is_file:
        out.parent.mkdir(parents=True, exist_ok=True)
        notes = [
            f"removed {item}, {size:,} bytes that a killed process left behind" for item, size in remove_leftovers(out.parent)
        ]
        write_tensors(out, plan.layout, tensors, header(False), (), complete)
    else:
        files = plan.files if metadata is None else plan.files.with_other(COPY_NAME, plan.file.path)
        parts = split_layout(plan.layout, shard_size)
        index = [INDEX_NAME] if len(parts) > 1 else []
        with result_folder(out, {*parts, *index, *files.names}) as swept:
            notes = [*files.notes, *swept]
            write_model(out, parts, tensors, header(False), complete)
            files.write(out)
    return Written((*notes, *_statistics(plan)), tuple(not_finite))


def _watched(plan: Plan, not_finite: list[str], on_progress: Progress | None) -> Iterator[tuple[str, Any]]:
    sources = [plan.models[name] for name in plan.file.models]
    labels = [plan.inputs.labels[name] for name in plan.file.models]
    for done, (name, values) in enumerate(merged_tensors(plan.file, plan.tensors, plan.models), start=1):
        found = name_not_finite(name, values, plan.layout[name][0], sources, labels)
        not_finite.extend([found] if found else [])
        yield name, values
        if on_progress:
            on_progress(done, len(plan.layout))


def _statistics(plan: Plan) -> list[str]:
    if plan.file.method == "passthrough":
        return []
    takes_base = METHODS[plan.file.method].takes_base
    return note_statistics([model for name, model in plan.models.items() if name != plan.file.base or takes_base])
