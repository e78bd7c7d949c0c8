"""From a checked table (or texts, or pictures with their labels) to a :class:`~graftwork.data.suite.Suite`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.records import Modality
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.deep_pixels import survey_pictures
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.picture_files import open_picture
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.text import TextEncoder, join_texts
from graftwork.data.names import check_names
from graftwork.data.options import DataOptions
from graftwork.data.output_columns import column_notes
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.checks import check_features, duplicate_note, group_notes, label_notes
from graftwork.data.reading.column import Column
from graftwork.data.reading.enough_labels import judged_tasks
from graftwork.data.reading.histories import history_notes
from graftwork.data.reading.infer import InferredTask, TargetRequest, infer_tasks
from graftwork.data.reading.nested import entry_name
from graftwork.data.reading.row_groups import task_groups
from graftwork.data.reading.table import Table, as_table
from graftwork.data.splits import split_rows
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RawSuite", "assemble_suite", "default_image_size"]

_MAX_RAW_CELLS = 500_000
"""Larger tables are not kept raw: the encoded inputs are enough to train."""
_MAX_PICTURE_BYTES = 1_500_000_000


@dataclass(frozen=True, kw_only=True)
class RawSuite:
    """What a suite is made of, before anything is inferred."""

    name: str
    frame: pd.DataFrame
    requests: Sequence[TargetRequest]
    modality: Modality = "table"
    options: DataOptions = field(default_factory=DataOptions)
    """Group, categories, histories and so on; targets are in ``requests``, and the columns named exist."""
    images: Sequence[Path] = ()
    """Picture file of each row, for modality ``image``."""
    features: Sequence[str] | None = None
    """Feature columns of a table; None takes all that are neither targets nor the group."""
    domain: NDArray[np.int64] | None = None
    domains: Sequence[str] = ()
    labels: Sequence[str] = ()
    """Row names; row numbers by default."""
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


def assemble_suite(raw_suite: RawSuite) -> Suite:
    """Infer tasks, check, split, encode.

    Raises:
        DataError: If targets, features, groups or pictures cannot be used; see the modules that do each step.
    """
    frame, options = raw_suite.frame, raw_suite.options
    items = tuple(set(options.histories.values()))
    table = as_table(frame, {*(options.categories or ()), *items})
    _check_categories(table, [*(options.categories or ()), *items])
    if options.group is not None:
        check_names([options.group], frame.columns, what="--group", where="the table")
    asked = infer_tasks(table, raw_suite.requests, options.task_kinds)
    tasks, rare_words = judged_tasks(asked)
    groups, group_words = task_groups(tasks) if options.group is None else _groups(table, options.group)
    tasks, splits, more_words = _split(tasks, groups, raw_suite)
    rare_words += more_words
    targets = {task.spec.name: task.target for task in tasks}
    used = {column for task in asked for column in task.spec.columns} | {options.group, *options.histories}
    candidates = [name for name in (table.columns if raw_suite.features is None else raw_suite.features) if name not in used]
    notes = [note for task in tasks for note in (_reason(task), *task.notes)]
    notes += [*rare_words, *raw_suite.notes, *group_words, *label_notes(tasks, len(frame))]
    notes += column_notes([task.spec for task in tasks], targets, images=raw_suite.modality == "image")
    labels = [str(label) for label in raw_suite.labels] or [f"row {row + 1}" for row in range(len(frame))]
    raw: dict[str, Any] = {"labels": labels, "reasons": {task.spec.name: task.reason for task in tasks}, **raw_suite.raw}
    encoder: Encoder
    if raw_suite.modality == "table":
        candidates, vector_words = _with_entries(table, candidates)
        notes += vector_words
        report = check_features(table, candidates, tasks, keep=items, seed=raw_suite.seed)
        if not set(items) <= set(report.features):
            raise DataError(
                f"The histories' item column {items[0]!r} is identical to a target, so it cannot be a feature. Leave the "
                f"histories out, or that target."
            )
        if not report.features:
            raise DataError(
                f"No feature column is left besides the targets ({', '.join(targets)}). "
                + " ".join(report.notes)
                + " Add columns to learn from."
            )
        notes += [*duplicate_note(table), *report.notes, *group_notes(table, report.features, options.group)]
        notes += history_notes(table, options.histories)
        encoder = TableEncoder.fit(table, report.features, rows=splits["train"], histories=options.histories)
        inputs = encoder.transform(table)
        if frame.shape[0] * frame.shape[1] <= _MAX_RAW_CELLS:
            raw["frame"] = {name: _raw_column(table[name]) for name in frame.columns}
    elif raw_suite.modality == "text":
        text_columns = options.text_columns(frame.columns)
        check_names(text_columns, frame.columns, what="--text", where="the table")
        texts = join_texts(frame, text_columns)
        notes += [*_text_notes(texts), *duplicate_note(table), *group_notes(table, candidates, options.group)]
        encoder = TextEncoder.fit([texts[row] for row in splits["train"]], columns=text_columns)
        inputs = encoder.transform(texts)
        raw["text"] = texts
    else:
        size = default_image_size(raw_suite.images) if options.image_size is None else options.image_size
        notes += group_notes(table, candidates, options.group)
        survey = survey_pictures(raw_suite.images, splits["train"])
        notes += survey.notes
        encoder = ImageEncoder(size, scales=survey.scales)
        inputs = encoder.transform(raw_suite.images)
        notes += _same_picture_note(inputs["image"])
    return Suite.of_arrays(
        name=raw_suite.name,
        modality=raw_suite.modality,
        tasks=tuple(task.spec for task in tasks),
        inputs=inputs,
        targets=targets,
        splits=splits,
        groups=groups,
        domain=raw_suite.domain,
        domains=tuple(raw_suite.domains),
        encoder=encoder.state(),
        input_sizes=encoder.input_sizes(),
        raw=raw,
        notes=tuple(notes),
        sources=dict(raw_suite.sources),
    )


def _split(
    tasks: list[InferredTask], groups: NDArray[np.int64] | None, raw_suite: RawSuite
) -> tuple[list[InferredTask], dict[str, NDArray[np.int64]], list[str]]:
    """Return the tasks that can be judged on the splits, these splits, and notes about the other tasks."""
    targets = {task.spec.name: task.target for task in tasks}
    splits = split_rows([task.spec for task in tasks], targets, groups=groups, domain=raw_suite.domain, seed=raw_suite.seed)
    kept, notes = judged_tasks(tasks, splits)
    return (kept, splits, notes) if len(kept) == len(tasks) else (kept, _split(kept, groups, raw_suite)[1], notes)


def _with_entries(table: Table, candidates: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the candidates with vector columns replaced by their entries, and notes about that."""
    found, notes = [], []
    for name in candidates:
        size = table[name].num_entries
        found += [entry_name(name, index) for index in range(size)] if size else [name]
        if size:
            notes.append(
                f"Column {name!r} holds vectors of {size} numbers; each entry is a column of its own, {entry_name(name, 0)!r} "
                f"and so on."
            )
    return found, notes


def _check_categories(table: Table, names: Sequence[str]) -> None:
    """Refuse columns of lists.

    Raises:
        DataError: If a column that is to be read as a category holds lists.
    """
    for name in names:
        if table[name].is_nested:
            raise DataError(
                f"Column {name!r} is to be read as a category, but some of its cells hold lists. Name a column with one value a "
                f"row."
            )


def _reason(task: InferredTask) -> str:
    spec = task.spec
    return f"Target {spec.name!r} is read as {spec.kind}{task_kind(spec).size_words(spec)}: {task.reason}."


def _groups(table: Table, group: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return group numbers; rows without a group are groups of their own."""
    codes, levels = table[group].named(table[group].naming)
    missing = int((codes < 0).sum())
    groups = codes.copy()
    groups[codes < 0] = np.arange(len(levels), len(levels) + missing)
    notes = [
        f"Rows are grouped by {group!r} ({len(levels)} groups): all rows of a group are on one side of every split; it is no "
        f"feature."
    ]
    if missing:
        notes.append(f"{missing} rows have no value in the group column {group!r}; each counts as a group of its own.")
    return groups, notes


def _raw_column(column: Column) -> Any:
    """Return a column's cells for the stored suite: numbers as an array, everything else as texts and lists of texts."""
    if column.is_nested:
        cells = [list(map(as_text, cell)) if isinstance(cell, np.ndarray) else cell for cell in column.cells.tolist()]
        return [cell if isinstance(cell, list) else as_text(cell) for cell in cells]
    if column.kind == "numeric":
        return column.numbers().values
    names = [*column.levels, None]
    return [names[code] for code in column.codes.tolist()]


def _text_notes(texts: Sequence[str]) -> list[str]:
    empty = sum(not text.strip() for text in texts)
    return [f"{empty} of {len(texts)} texts are empty."] if empty else []


def _same_picture_note(pictures: NDArray[np.uint8]) -> list[str]:
    seen = {picture.tobytes() for picture in pictures}
    copies = len(pictures) - len(seen)
    return (
        [
            f"{copies} of {len(pictures)} pictures look exactly like another one; copies on both sides of a split flatter the "
            f"scores."
        ]
        if copies
        else []
    )


def default_image_size(images: Sequence[Path]) -> int:
    """Return 32, 64, 96 or 128: what the shorter sides of up to 64 pictures reach, as long as all pictures fit into 1.5 GB."""
    sides = []
    for path in images[:: max(1, len(images) // 64)][:64]:
        try:
            with open_picture(path) as picture:
                sides.append(min(picture.size))
        except DataError:
            continue  # named by the encoder, together with all other faulty files
    middle = float(np.median(sides)) if sides else 64.0
    fitting = [
        size for size in (32, 64, 96, 128) if size <= max(middle, 32) and len(images) * size * size * 3 <= _MAX_PICTURE_BYTES
    ]
    return max(fitting, default=32)
