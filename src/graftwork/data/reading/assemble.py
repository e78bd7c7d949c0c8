"""From a checked table (or texts, or pictures with their labels) to a :class:`~graftwork.data.suite.Suite`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.core.input_spec import InputSpec
from graftwork.data.encoders.base import Encoder
from graftwork.data.encoders.deep_pixels import survey_pictures
from graftwork.data.encoders.image import ImageEncoder
from graftwork.data.encoders.table import TableEncoder
from graftwork.data.encoders.text import NETWORK_TOKENS, PRETRAINED_TOKENS, TextEncoder, join_texts
from graftwork.data.folds import DRAWN
from graftwork.data.names import short_list
from graftwork.data.options import DataOptions
from graftwork.data.output_columns import column_notes
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.checks import check_features, duplicate_note, label_notes
from graftwork.data.reading.column import Column
from graftwork.data.reading.column_fates import column_fates
from graftwork.data.reading.division import Division, divide_rows
from graftwork.data.reading.enough_labels import judged_tasks
from graftwork.data.reading.free_texts import free_text_notes, free_texts
from graftwork.data.reading.grouping import group_notes
from graftwork.data.reading.histories import history_notes
from graftwork.data.reading.infer import InferredTask, TargetRequest, infer_tasks
from graftwork.data.reading.large_tables import LargeColumns, is_large, large_columns
from graftwork.data.reading.nested import entry_name
from graftwork.data.reading.notes import fold
from graftwork.data.reading.picture_cells import SKIPPED_SHARE
from graftwork.data.reading.picture_size import default_image_size
from graftwork.data.reading.streamed import StreamedTable
from graftwork.data.reading.table import Table, as_table
from graftwork.data.row_names import RowNames
from graftwork.data.splits import IN_ORDER, TIMES
from graftwork.data.suite import Suite
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RawSuite", "assemble_suite"]

_MAX_RAW_CELLS = 500_000
"""Larger tables are not kept raw: the encoded inputs are enough to train."""
_MOST_REASONS = 8


@dataclass(frozen=True, kw_only=True)
class RawSuite:
    """What a suite is made of, before anything is inferred: columns of a table, texts and pictures, in any number."""

    name: str
    frame: pd.DataFrame | StreamedTable
    requests: Sequence[TargetRequest]
    options: DataOptions = field(default_factory=DataOptions)
    """Group, categories, histories and so on; targets are in ``requests``, and the columns named exist."""
    features: Sequence[str] | None = None
    """Columns that are learned from as a table; None takes all that serve nothing else, none leaves the table out."""
    text: Sequence[str] = ()
    """Columns that make up the text, if there is one."""
    images: Mapping[str, Sequence[Path | None]] = field(default_factory=dict)
    """Picture file of each row, by the column that names it (``""`` if no column does); None for a row without one."""
    alternatives: Sequence[Collection[str]] = ()
    """Columns of each of several data sets."""
    domain: NDArray[np.int64] | None = None
    domains: Sequence[str] = ()
    labels: Sequence[str] = ()
    """Row names; row numbers by default."""
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(kw_only=True)
class _Inputs:
    """The inputs of a suite as they are found, one after the other."""

    encoders: dict[str, Encoder] = field(default_factory=dict)
    arrays: dict[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    """Rows that are in no split, since their picture cannot be read."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Why columns are not learned from."""

    def add(self, encoder: Encoder, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add an input; it is called like its kind, further ones of a kind have a number."""
        same = sum(other.kind == encoder.kind for other in self.encoders.values())
        name = encoder.kind if not same else f"{encoder.kind}_{same + 1}"
        self.encoders[name], self.arrays[name] = encoder, arrays

    def specs(self) -> tuple[dict[str, InputSpec], dict[str, NDArray[Any]]]:
        """Return the inputs' records, and all arrays by names that are unique."""
        if len(self.encoders) == 1:
            ((name, encoder),) = self.encoders.items()
            return {name: encoder.spec()}, dict(self.arrays[name])
        specs: dict[str, InputSpec] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for name, encoder in self.encoders.items():
            # Two inputs may have an array of one name; the later one gets its input in front.
            names = {own: own if own not in arrays else f"{name}.{own}" for own in self.arrays[name]}
            specs[name] = replace(encoder.spec(), arrays=names)
            arrays |= {names[own]: array for own, array in self.arrays[name].items()}
        return specs, arrays


def assemble_suite(raw_suite: RawSuite) -> Suite:
    """Infer tasks, check, split, encode.

    Raises:
        DataError: If targets, features, groups or pictures cannot be used; see the modules that do each step.
    """
    with large_columns(len(raw_suite.frame)) as large:
        return _assembled(raw_suite, large)


def _assembled(raw_suite: RawSuite, large: LargeColumns | None) -> Suite:
    """Return the suite; no array of it lies where columns of large tables are kept."""
    frame, options = raw_suite.frame, raw_suite.options
    items = tuple(set(options.histories.values()))
    # Columns named as categories are not guessed as numbers.
    table = as_table(frame, {*(options.categories or ()), *items}, large)
    _check_categories(table, [*(options.categories or ()), *items])
    asked = infer_tasks(table, raw_suite.requests, options.task_kinds, options.split_labels)
    # Before the split, and after it once more: the splits themselves can lack a class.
    judged, rare_words = judged_tasks(asked)
    taken = {column for request in raw_suite.requests for column in request.columns}
    taken |= {*raw_suite.text, *raw_suite.images, *options.histories}
    plain = not (raw_suite.text or raw_suite.images) and raw_suite.features is None and options.text is None
    # Of large tables, and beside pictures, frequent words of such columns are flags.
    found = free_texts(table, options, taken) if plain and not is_large(len(table)) else ()
    raw_suite, taken = replace(raw_suite, text=raw_suite.text or found), {*taken, *found}
    # Columns that are ignored as well: rows of a person belong together whether the person is learned from or not.
    division = divide_rows(
        table,
        options,
        judged,
        [name for name in table.columns if name not in taken],
        domain=raw_suite.domain,
        seed=raw_suite.seed,
    )
    tasks, splits = division.tasks, division.splits
    targets = {task.spec.name: task.target for task in tasks}
    notes = [*division.first, *_task_notes(tasks)]
    if len(tasks) == 1:
        notes.append(
            "There is one target, so nothing can be learned together with it: plans are compared for it alone. Whether learning "
            "together helps shows with two targets or more (--targets a,b)."
        )
    notes += [*free_text_notes(found), *rare_words, *raw_suite.notes, *division.notes, *label_notes(tasks, len(frame))]
    notes += column_notes([task.spec for task in tasks], targets, images="" in raw_suite.images)
    # Counted from 1, as people count rows.
    labels = [str(label) for label in raw_suite.labels] or RowNames(len(frame))
    # Lists are what runs have always stored; of a million rows they are too long.
    labels = labels if is_large(len(frame)) else list(labels)
    inputs = _Inputs()
    _add_table(inputs, raw_suite, table, asked, division)
    if raw_suite.text:
        texts = join_texts(frame, raw_suite.text)
        # Fitted on training rows only: the vocabulary must not know words of the test rows.
        encoder = TextEncoder.fit([texts[row] for row in splits["train"]], columns=raw_suite.text, missing=options.missing or ())
        arrays, cut = encoder.transform_counted(texts)
        inputs.notes += _text_notes(texts, cut, encoder.max_length)
        inputs.add(encoder, arrays)
        inputs.raw["text"] = texts
    for column, files in raw_suite.images.items():
        _add_pictures(inputs, column, files, options, splits["train"])
    inputs.raw["columns"] = column_fates(
        table,
        inputs.encoders.get("table"),
        targets={column for task in asked for column in task.spec.columns},
        roles=dict.fromkeys(raw_suite.text, "text") | dict.fromkeys(raw_suite.images, "picture"),
        dropped=inputs.dropped | dict.fromkeys(options.ignore or (), "left out with --ignore"),
        group=division.column,
    )
    if inputs.skipped:
        targets = {name: _without_labels(target, inputs.skipped) for name, target in targets.items()}
        splits = {part: rows[~np.isin(rows, list(inputs.skipped))] for part, rows in splits.items()}
    specs, arrays = inputs.specs()
    reasons = {task.spec.name: task.reason for task in tasks}
    return Suite.of_arrays(
        name=raw_suite.name,
        input_specs=specs,
        tasks=tuple(task.spec for task in tasks),
        inputs=arrays,
        targets=targets,
        splits=splits,
        groups=division.groups,
        domain=raw_suite.domain,
        domains=tuple(raw_suite.domains),
        raw={
            DRAWN: not division.in_order,
            IN_ORDER: division.in_order,
            # A copy, as the group's numbers are.
            **({TIMES: np.array(division.times)} if division.times is not None else {}),
            "labels": labels,
            "reasons": reasons,
            "crossing": division.crossing,
            **raw_suite.raw,
            **inputs.raw,
        },
        notes=(*notes, *inputs.notes),
        sources=dict(raw_suite.sources),
    )


def _add_table(
    inputs: _Inputs,
    raw_suite: RawSuite,
    table: Table,
    asked: Sequence[InferredTask],
    division: Division,
) -> None:
    """Add the columns of the table, unless none of them is to be learned from.

    Args:
        inputs: Where it is added.
        raw_suite: What is asked for.
        table: The table.
        asked: The tasks as asked for.
        division: Those of them that are kept, the splits and the group.

    Raises:
        DataError: If there is no other input and no column is left to learn from, or a history's item is a target.
    """
    options, has_others = raw_suite.options, bool(raw_suite.text or raw_suite.images)
    # Also columns of tasks that were left out: a target that cannot be judged still gives others away.
    used = {column for task in asked for column in task.spec.columns} | {division.column, *options.histories}
    used |= {*raw_suite.text, *raw_suite.images, *(options.ignore or ())}
    named = table.columns if raw_suite.features is None else raw_suite.features
    candidates = [name for name in named if name not in used]
    # The user asked for no table beside the text or the pictures.
    if raw_suite.features is not None and not candidates and has_others:
        left = [name for name in table.columns if name not in used]
        inputs.notes += [*(duplicate_note(table) if raw_suite.text else []), *group_notes(table, left, division.column)]
        return
    items = tuple(set(options.histories.values()))
    candidates, vector_words = _with_entries(table, candidates)
    report = check_features(table, candidates, division.tasks, keep=items, seed=raw_suite.seed)
    inputs.dropped |= report.dropped
    if not set(items) <= set(report.features):
        raise DataError(
            f"The histories' item column {items[0]!r} is identical to a target, so it cannot be a feature. Leave the "
            f"histories out, or that target."
        )
    if not report.features and not has_others:
        raise DataError(
            f"No feature column is left besides the targets ({', '.join(task.spec.name for task in division.tasks)}). "
            + " ".join(report.notes)
            + " Add columns to learn from."
        )
    inputs.notes += [*vector_words, *duplicate_note(table), *report.notes]
    inputs.notes += group_notes(table, report.features or candidates, division.column)
    if not report.features:
        return
    inputs.notes += history_notes(table, options.histories)
    if has_others:
        number = len(report.features)
        inputs.notes.append(
            f"Besides {'the text' if raw_suite.text else 'the pictures'}, {number} "
            f"{'column is' if number == 1 else 'columns are'} learned from: {short_list(report.features)}. Leave columns out with "
            "--ignore."
        )
    encoder = TableEncoder.fit(
        table, report.features, rows=division.splits["train"], histories=options.histories, missing=options.missing or (),
        alternatives=raw_suite.alternatives,
    )  # fmt: skip
    inputs.add(encoder, encoder.transform(table))
    if len(table) * len(table.columns) <= _MAX_RAW_CELLS:
        inputs.raw["frame"] = {name: _raw_column(table[name]) for name in table.columns}


def _add_pictures(
    inputs: _Inputs, column: str, files: Sequence[Path | None], options: DataOptions, train: NDArray[np.int64]
) -> None:
    """Add the pictures of a column (or of a folder, if no column names them); a few that cannot be read are skipped."""
    there = [path for path in files if path is not None]
    size = default_image_size(there) if options.image_size is None else options.image_size
    # From rows to numbers among the pictures that are there.
    position = np.cumsum([path is not None for path in files]) - 1
    survey = survey_pictures(there, position[[row for row in train.tolist() if files[row] is not None]].astype(np.int64))
    encoder = ImageEncoder(size, scales=survey.scales, column=column or None)
    arrays, faults = encoder.transform_readable(files, 0 if options.strict else int(SKIPPED_SHARE * len(there)))
    known = [path is not None and row not in faults for row, path in enumerate(files)]
    inputs.notes += [*survey.notes, *_same_picture_note(arrays["image"][known])]
    inputs.skipped |= set(faults)
    if faults:
        rows = (
            "1 row is skipped, since its picture" if len(faults) == 1 else f"{len(faults)} rows are skipped, since their pictures"
        )
        inputs.notes.append(
            f"{rows} cannot be read: {short_list(faults.values(), 3)}. Replace the files, or say --strict to stop at such files."
        )
    if len(there) < len(files):
        inputs.notes.append(
            f"{len(files) - len(there)} of {len(files)} rows have no picture in column {column!r}; an empty one stands for it."
        )
    inputs.add(encoder, arrays)


def _without_labels(target: NDArray[Any], rows: set[int]) -> NDArray[Any]:
    """Return a target with the labels of some rows missing."""
    target = target.copy()
    target[list(rows)] = -1 if np.issubdtype(target.dtype, np.integer) else np.nan
    return target


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


def _task_notes(tasks: Sequence[InferredTask]) -> list[str]:
    """Return how each target is read; of many, one line a kind."""
    if len(tasks) <= _MOST_REASONS:
        return [note for task in tasks for note in (_reason(task), *task.notes)]
    notes = []
    for kind in dict.fromkeys(task.spec.kind for task in tasks):
        of_kind = [task for task in tasks if task.spec.kind == kind]
        examples = [f"{task.spec.name!r} ({task.reason})" for task in of_kind]
        count = "1 target is" if len(of_kind) == 1 else f"{len(of_kind)} targets are"
        notes.append(f"{count} read as {kind}: {short_list(examples, 3)}.")
    return notes + fold([note for task in tasks for note in task.notes], "Notes on targets")


def _reason(task: InferredTask) -> str:
    spec = task.spec
    return f"Target {spec.name!r} is read as {spec.kind}{task_kind(spec).size_words(spec)}: {task.reason}."


def _raw_column(column: Column) -> Any:
    """Return a column's cells for the stored suite: numbers as an array, everything else as texts and lists of texts."""
    if column.is_nested:
        cells = [list(map(as_text, cell)) if isinstance(cell, np.ndarray) else cell for cell in column.cells.tolist()]
        return [cell if isinstance(cell, list) else as_text(cell) for cell in cells]
    if column.kind == "numeric":
        return np.array(column.numbers().values)
    # Code -1 finds the None at the end.
    names = [*column.levels, None]
    return [names[code] for code in column.codes.tolist()]


def _text_notes(texts: Sequence[str], cut: int, length: int) -> list[str]:
    empty = sum(not text.strip() for text in texts)
    notes = [f"{empty} of {len(texts)} texts are empty."] if empty else []
    if cut:
        notes.append(f"{cut} of {len(texts)} texts are cut after {length} tokens: what follows is not read.")
    if length > PRETRAINED_TOKENS:
        notes.append(
            f"Linear models and trees read up to {length} tokens of a text, untrained networks the first "
            f"{min(length, NETWORK_TOKENS)}, pretrained ones the first {PRETRAINED_TOKENS}."
        )
    return notes


def _same_picture_note(pictures: NDArray[np.uint8]) -> list[str]:
    # Exact copies after resizing; near copies are not looked for.
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
