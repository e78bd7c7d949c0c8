"""Findings about a table before anything is trained: constant, identifier and leaking columns, copies, rare classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.group_names import is_group_name, is_id_name
from graftwork.data.reading.infer import InferredTask
from graftwork.data.reading.leak_notes import CopyFinder, leak_notes
from graftwork.data.reading.notes import fold, fold_by_example
from graftwork.data.reading.odd_cells import mixed_cell_notes, odd_cell_notes
from graftwork.data.reading.phrases import holds_phrases, only_names_rows, shared_words
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.twin_targets import twin_notes
from graftwork.data.suite import labelled_rows
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FeatureReport", "check_features", "duplicate_note", "label_notes"]

_WHY = {
    "constant": "one value or none",
    "identifier": "only names rows: nearly all values differ",
    "text": "free text; --text learns from it",
    "list": "lists or records of no one form",
    "binary": "bytes that are no text",
}
"""Why a column is dropped, in a few words."""
_FEW_ROWS = 200
_RARE_CLASS = 5


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """Which columns serve as features, and what was found."""

    features: tuple[str, ...]
    notes: tuple[str, ...]
    identifiers: tuple[str, ...]
    """Columns dropped because they only name rows."""
    dropped: Mapping[str, str]
    """Why each candidate that is no feature is none, in a few words."""


def check_features(
    frame: pd.DataFrame | Table,
    candidates: Sequence[str],
    tasks: Sequence[InferredTask],
    *,
    keep: Sequence[str] = (),
    seed: int = 0,
) -> FeatureReport:
    """Decide which candidate columns serve as features.

    Constant columns, identifiers, free texts and exact copies of a target are dropped; columns that alone predict a target nearly
    perfectly stay, but are pointed out. Every decision is a note.

    Args:
        frame: The raw table.
        candidates: Columns that are neither targets nor the group.
        tasks: The tasks, with their targets.
        keep: Candidates that stay unless they copy a target.
        seed: Picks the sample on which leaks are looked for.
    """
    notes: list[str] = []
    table = as_table(frame)
    dropped: dict[str, list[str]] = {"constant": [], "identifier": [], "text": [], "list": [], "binary": []}
    kept: list[str] = []
    ticks: list[str] = []
    why: dict[str, str] = {}
    copies: list[tuple[str, str]] = []
    finder = CopyFinder(table, [(task.spec.name, column) for task in tasks for column in task.spec.columns])
    for name in candidates:
        fate = "" if name in keep else _fate(table[name])
        if fate == "tick":
            ticks.append(name)
            fate = ""
        copied = "" if fate else finder.copied(table[name])
        if copied:
            why[name] = f"identical to target {copied!r}"
            copies.append(
                (
                    f"{name!r} (of {copied!r})",
                    f"Column {name!r} is identical to target {copied!r}: it would give the answer away, so it is dropped from "
                    f"the features.",
                )
            )
        elif fate:
            dropped[fate].append(name)
            why[name] = _WHY[fate]
        else:
            kept.append(name)
    notes += fold_by_example(
        copies, "{count} columns are identical to targets and would give the answers away, so they are dropped: {examples}."
    )
    if dropped["constant"]:
        notes.append(f"Dropped columns that hold one value or none: {short_list(dropped['constant'])}.")
    if dropped["identifier"]:
        notes.append(f"Dropped columns that only name rows (nearly all values differ): {short_list(dropped['identifier'])}.")
    if dropped["text"]:
        notes.append(
            f"Dropped free-text columns: {short_list(dropped['text'])}. To learn from a text, name its column with --text."
        )
    if dropped["list"]:
        notes.append(
            f"Dropped columns that hold lists or records of no one form: {short_list(dropped['list'])}. Lists of equally "
            "many numbers are read as vectors; a column with the ids of earlier items can be named with --history."
        )
    if dropped["binary"]:
        notes.append(f"Dropped columns that hold bytes which are no UTF-8 text: {short_list(dropped['binary'])}.")
    if ticks:
        notes.append(
            f"{'A column holds' if len(ticks) == 1 else f'{len(ticks)} columns hold'} one value or an empty cell, and "
            f"{'is' if len(ticks) == 1 else 'are'} learned from as boxes that are ticked or not: {short_list(ticks, 3)}."
        )
    notes += fold(
        [note for name in kept for note in table[name].notes()], "Notes on columns whose cells are read in a way of their own"
    )
    notes += mixed_cell_notes(table, [name for name in candidates if name in kept or name in dropped["identifier"]])
    notes += _word_notes(table, kept)
    infinite = [name for name in kept if table[name].kind == "numeric" and np.isinf(table[name].numbers().values).any()]
    if infinite:
        notes.append(f"Infinite values count as missing in the feature columns {short_list(infinite)}.")
    notes += leak_notes(table, kept, tasks, seed)
    notes += odd_cell_notes(table, kept, [column for task in tasks for column in task.spec.columns])
    return FeatureReport(tuple(kept), tuple(notes), tuple(dropped["identifier"]), why)


def _fate(column: Column) -> str:
    """Return why a column is dropped: ``constant``, ``identifier``, ``text``, ``list``, ``binary``; an empty string or, of one value
    and empty cells, ``tick`` if it is kept."""
    kind, name = column.kind, column.name
    if kind in ("list", "binary"):
        return kind
    if kind == "numeric":
        numbers = column.numbers().values
        known: NDArray[Any] = numbers[~np.isnan(numbers)]
        distinct = len(np.unique(known))
    else:
        codes, levels = column.named(column.naming)
        known, distinct = codes[codes >= 0], len(levels)
    if distinct <= 1:
        # The empty cells of a column with one value say something, as those of a box that is ticked or not do.
        is_tick = kind in ("numeric", "categorical") and min(len(known), len(column) - len(known)) >= _RARE_CLASS
        return "tick" if is_tick else "constant"
    if kind == "text":
        return "" if _has_shared_words(column) else "text"
    if kind == "categorical" and only_names_rows(column) and not _has_shared_words(column):
        return "identifier"
    if kind == "numeric" and len(known) >= 20 and distinct == len(known):
        # Measurements are all different as well; only whole numbers with a telling name, or counted up by 1, name rows.
        whole = bool(np.isfinite(known).all() and (known == np.round(known)).all())
        if whole and (is_id_name(name) or is_group_name(name) or bool((np.diff(known) == 1).all())):
            return "identifier"
    return ""


def _has_shared_words(column: Column) -> bool:
    """Return whether the cells of a column, though they nearly all differ, share words that can be learned from."""
    if not holds_phrases(column):
        return False
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    return bool(shared_words(column.levels, counts.tolist(), most=1))


def _word_notes(table: Table, kept: Sequence[str]) -> list[str]:
    """Return which columns are learned from by their words alone."""
    names = [name for name in kept if table[name].kind == "categorical" and only_names_rows(table[name])]
    texts = [name for name in kept if table[name].kind == "text"]
    notes = []
    if names:
        notes.append(f"Nearly all values differ, so only their frequent words are learned from: {short_list(names)}.")
    if texts:
        notes.append(
            f"Of free text only the frequent words are learned from: {short_list(texts)}. To learn from a whole text, name its "
            "column with --text."
        )
    return notes


def duplicate_note(frame: pd.DataFrame | Table) -> list[str]:
    """Return a note if rows are exact copies of others."""
    table = as_table(frame)
    pandas = require("pandas", extra="data", purpose="Reading tables")

    def key(name: str) -> NDArray[Any]:
        # Codes for texts: comparing numbers is far quicker, and -1 makes missing cells equal.
        column = table[name]
        return column.numbers().values if column.machine_kind in "biuf" else column.codes

    # Row by row only where hashes repeat: nearly all rows of a large table are told apart by theirs.
    hashes = np.zeros(len(table), dtype=np.uint64)
    for name in table.columns:
        # Plus zero: -0.0 equals 0.0, and its bits differ.
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + pandas.util.hash_array(key(name) + 0)
    repeated = np.flatnonzero(pandas.Series(hashes).duplicated(keep=False).to_numpy())
    found = {number: key(name)[repeated] for number, name in enumerate(table.columns)} if len(repeated) else {}
    copies = int(pandas.DataFrame(found).duplicated().sum())
    if not copies:
        return []
    return [
        f"{copies} of {len(table)} rows {'is an exact copy of another' if copies == 1 else 'are exact copies of others'}; copies on both sides of a split flatter the scores. "
        "Remove them, or keep them together with --group."
    ]


def label_notes(tasks: Sequence[InferredTask], num_rows: int) -> list[str]:
    """Return notes on missing labels, rows without any label, rare classes, few rows, and classes and targets that repeat others."""
    missing: list[tuple[str, str]] = []
    few: list[tuple[str, str]] = []
    rare: list[tuple[str, str]] = []
    any_label = np.zeros(num_rows, dtype=bool)
    for task in tasks:
        name, known = task.spec.name, labelled_rows(task.target)
        any_label |= known
        count = int(known.sum())
        lost = num_rows - count
        if lost:
            sentence = f"Target {name!r}: {lost} of {num_rows} labels are missing; these rows do not count for it."
            missing.append((f"{name!r} ({lost} of {num_rows})", sentence))
        if count < _FEW_ROWS:
            sentence = f"Few labels: target {name!r} has {count}; intervals will be wide, and the verdict may stay open."
            few.append((f"{name!r} has {count}", sentence))
        rare += [(repr(name), note) for note in _rare_notes(task.spec, task.target)]
    notes = fold_by_example(
        missing, "Labels are missing for {count} targets: {examples}; rows without a label do not count for its target."
    )
    notes += fold_by_example(
        few, "Few labels for {count} targets: {examples}; intervals will be wide, and the verdict may stay open."
    )
    notes += fold_by_example(rare, f"{{count}} targets have rare classes with fewer than {_RARE_CLASS} rows: {{examples}}.")
    unlabelled = num_rows - int(any_label.sum())
    if unlabelled:
        notes.append(
            f"{unlabelled} {'row has' if unlabelled == 1 else 'rows have'} no label of any target; plans that learn from unlabelled rows use them for training, "
            f"others do not."
        )
    return notes + _spelling_notes(tasks) + twin_notes(tasks)


def _spelling_notes(tasks: Sequence[InferredTask]) -> list[str]:
    """Return which classes differ in nothing but capitals: as a rule somebody meant one class."""
    found = []
    for task in tasks:
        alike: dict[str, list[str]] = {}
        for word in task.spec.classes:
            alike.setdefault(word.casefold(), []).append(word)
        pairs = [" and ".join(map(repr, words)) for words in alike.values() if len(words) > 1]
        if pairs:
            name = repr(task.spec.name)
            sentence = f"Target {name} has classes that differ in capitals alone: {short_list(pairs, 3)}. If one is meant, write them alike."
            found.append((name, sentence))
    return fold_by_example(
        found, "{count} targets have classes that differ in capitals alone: {examples}. If one is meant, write them alike."
    )


def _rare_notes(spec: TaskSpec, target: NDArray[np.generic]) -> list[str]:
    counts: list[int] = []
    for column in task_kind(spec).label_columns(spec, target):
        if column.form == "classes":
            known = np.asarray(column.values, dtype=np.int64)
            counts += np.bincount(known[known >= 0], minlength=len(spec.classes)).tolist()
        elif column.form == "flag":
            counts.append(int(np.nansum(np.asarray(column.values, dtype=np.float64))))
    rare = [f"{spec.classes[index]} ({counts[index]})" for index in np.flatnonzero(np.array(counts) < _RARE_CLASS)]
    return [f"Target {spec.name!r} has rare classes with fewer than {_RARE_CLASS} rows: {short_list(rare, 6)}."] if rare else []
