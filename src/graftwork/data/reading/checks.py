"""Findings about a table before anything is trained: constant, identifier and leaking columns, copies, likely groups, rare
classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.core.records import TaskSpec
from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.infer import InferredTask
from graftwork.data.reading.leaks import LEAK_SCORE, FeatureKeys, single_feature_score
from graftwork.data.reading.table import Table, as_table
from graftwork.data.suite import labelled_rows
from graftwork.interfaces.task_kind import task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FeatureReport", "check_features", "duplicate_note", "group_notes", "label_notes"]

_GROUP_WORD = re.compile(
    r"(^|_)(patient|user|customer|client|subject|person|people|participant|student|pupil|teacher|site|hospital|clinic|school|store|shop|session|"
    r"household|family|group|device|sensor|machine|animal|mouse|batch|plate|slide|farm|speaker|author|rater|doctor|company|donor|visit|study|centre|center)s?"
    r"(_?(id|no|nr|num|number|code|key|name))?$"
)
_ID_NAME = re.compile(r"(^|_)(id|uuid|guid|key|index|idx|row|rownames|rowid|no|nr|number|code|unnamed: ?\d+)$")
_FEW_ROWS = 200
_RARE_CLASS = 5


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """Which columns serve as features, and what was found."""

    features: tuple[str, ...]
    notes: tuple[str, ...]
    identifiers: tuple[str, ...]
    """Columns dropped because they only name rows."""


def _snake(name: str) -> str:
    # patientId and "Patient ID" become patient_id.
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace(" ", "_").replace("-", "_").strip("_")


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
    for name in candidates:
        fate = "" if name in keep else _fate(table[name])
        copied = [
            task.spec.name
            for task in tasks
            if not fate and any(_same(table[name], table[column]) for column in task.spec.columns)
        ]
        if copied:
            notes.append(
                f"Column {name!r} is identical to target {copied[0]!r}: it would give the answer away, so it is dropped from "
                f"the features."
            )
        elif fate:
            dropped[fate].append(name)
        else:
            kept.append(name)
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
    for name in kept:
        notes += table[name].notes()
    infinite = [name for name in kept if table[name].kind == "numeric" and np.isinf(table[name].numbers().values).any()]
    if infinite:
        notes.append(f"Infinite values count as missing in the feature columns {short_list(infinite)}.")
    notes += _leak_notes(table, kept, tasks, seed)
    return FeatureReport(tuple(kept), tuple(notes), tuple(dropped["identifier"]))


def _fate(column: Column) -> str:
    """Return why a column is dropped: ``constant``, ``identifier``, ``text``, ``list``, ``binary``, or an empty string if it is
    kept."""
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
        return "constant"
    if kind == "text":
        return "text"
    # Nearly all: a few repeated names do not make a column of names useful.
    if kind == "categorical" and len(known) >= 20 and distinct > 0.95 * len(known):
        return "identifier"
    if kind == "numeric" and len(known) >= 20 and distinct == len(known):
        # Measurements are all different as well; only whole numbers with a telling name, or counted up by 1, name rows.
        whole = bool(np.isfinite(known).all() and (known == np.round(known)).all())
        if whole and (_ID_NAME.search(_snake(name)) or _GROUP_WORD.search(_snake(name)) or bool((np.diff(known) == 1).all())):
            return "identifier"
    return ""


def _same(feature: Column, target: Column) -> bool:
    """Return whether a feature repeats a target's cells wherever the target is known."""
    if feature.is_nested or target.is_nested:
        return False
    # Numbers are compared by value: 1.0 repeats 1. A category's numbers are names.
    if "numeric" in (feature.kind, target.kind) and not (feature.is_category or target.is_category):
        if feature.kind != target.kind:
            return False
        known = ~np.isnan(target.numbers().values)
        return bool(known.any() and np.array_equal(feature.numbers().values[known], target.numbers().values[known]))
    codes, levels = target.named(target.naming)
    known = codes >= 0
    others, other_levels = feature.named(target.naming)
    if not known.any() or (others[known] < 0).any():
        return False
    index = {level: number for number, level in enumerate(levels)}
    # Levels that the target does not have become -1, which equals no known label.
    translated = np.array([index.get(level, -1) for level in other_levels], dtype=np.int64)
    return bool(np.array_equal(translated[others[known]], codes[known]))


def _leak_notes(table: Table, features: Sequence[str], tasks: Sequence[InferredTask], seed: int) -> list[str]:
    notes = []
    for name in features:
        feature = FeatureKeys.of(table[name])
        for task in tasks:
            score = single_feature_score(feature, task.spec, task.target, seed=seed)
            if score is not None and score > LEAK_SCORE:
                forms = {column.form for column in task_kind(task.spec).label_columns(task.spec, task.target)}
                measure = "R2" if "number" in forms else "accuracy"
                notes.append(
                    f"Possible leak: column {name!r} alone predicts target {task.spec.name!r} almost perfectly ({measure} "
                    f"{score:.4f}). If it is only known once the target is, remove it from the table."
                )
    return notes


def duplicate_note(frame: pd.DataFrame | Table) -> list[str]:
    """Return a note if rows are exact copies of others."""
    table = as_table(frame)
    pandas = require("pandas", extra="data", purpose="Reading tables")
    columns = [table[name] for name in table.columns]
    # Codes for texts: comparing numbers is far quicker, and -1 makes missing cells equal.
    keys = {
        number: column.numbers().values if column.machine_kind in "biuf" else column.codes
        for number, column in enumerate(columns)
    }
    copies = int(pandas.DataFrame(keys).duplicated().sum())
    if not copies:
        return []
    return [
        f"{copies} of {len(table)} rows are exact copies of others; copies on both sides of a split flatter the scores. "
        "Remove them, or keep them together with --group."
    ]


def group_notes(frame: pd.DataFrame | Table, candidates: Sequence[str], group: str | None) -> list[str]:
    """Point out columns that look like groups (patient, user, site) which the user did not name.

    A column counts if its name says so, or if it is made of words or whole numbers and rows of equal value are much alike in the
    other columns; in both cases with values that repeat.
    """
    if group is not None:
        return []
    notes = []
    table = as_table(frame)
    numbers = _standard_numbers(table, candidates)
    for name in candidates:
        column = table[name]
        if column.kind not in ("numeric", "categorical") or (column.kind == "numeric" and not _is_whole(column)):
            continue
        codes, levels = column.named(column.naming)
        known, distinct = int((codes >= 0).sum()), len(levels)
        # A group has at least two rows on average; one value alone groups nothing.
        if not 2 <= distinct <= known // 2:
            continue
        # A column called "code" with three values is a category.
        named = _GROUP_WORD.search(_snake(name)) is not None or (_ID_NAME.search(_snake(name)) is not None and distinct >= 10)
        # With few values any two columns are alike by chance, and the name says it already.
        alike = 0.0 if named or distinct < 20 else _likeness(codes, {key: item for key, item in numbers.items() if key != name})
        if named or alike > 0.6:
            why = (
                "by its name"
                if named
                else f"since rows of one value are much alike ({alike:.0%} of the spread lies between values)"
            )
            advice = (
                f"Keep such rows together with --group {name}."
                if distinct >= 10
                else f"With {distinct} values it cannot be split by group; read the scores with care."
            )
            notes.append(
                f"Column {name!r} looks like a group {why}: {distinct} values, {known / distinct:.0f} rows each on average. "
                f"Rows of one {name} may land on both sides of a split. {advice}"
            )
    return notes


def _is_whole(column: Column) -> bool:
    """Return whether a column of numbers could be one of ids: whole numbers or flags, as they stand in the cells."""
    values = column.numbers().values
    known = values[~np.isnan(values)]
    return bool(np.isfinite(known).all() and (known == np.round(known)).all())


def _standard_numbers(table: Table, candidates: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    # 20 columns settle a median.
    columns = [table[name] for name in candidates if table[name].kind == "numeric" and table[name].machine_kind != "b"][:20]
    numbers = {}
    for column in columns:
        values = column.numbers().values
        finite = np.isfinite(values)
        if finite.sum() > 1 and values[finite].std() > 0:
            # Missing cells in the middle: they make rows neither alike nor different.
            middle = np.median(values[finite])
            numbers[column.name] = np.where(finite, values, middle)
    return numbers


def _likeness(codes: NDArray[np.int64], numbers: dict[str, NDArray[np.float64]]) -> float:
    """Return the median share of variance between groups, corrected for chance (1 = rows of a group are equal)."""
    if len(numbers) < 2:
        return 0.0
    known = codes >= 0
    groups = codes[known]
    sizes = np.bincount(groups)
    num_rows, num_groups = len(groups), int((sizes > 0).sum())
    shares = []
    for values in numbers.values():
        column = values[known]
        means = np.bincount(groups, weights=column) / np.maximum(sizes, 1)
        # n - groups degrees of freedom, so that many small groups do not look alike by chance.
        within = ((column - means[groups]) ** 2).sum() / max(num_rows - num_groups, 1)
        total = column.var(ddof=1)
        shares.append(1.0 - within / total if total > 0 else 0.0)
    return float(np.median(shares))


def label_notes(tasks: Sequence[InferredTask], num_rows: int) -> list[str]:
    """Return notes on missing labels, rows without any label, rare classes and few rows."""
    notes = []
    any_label = np.zeros(num_rows, dtype=bool)
    for task in tasks:
        known = labelled_rows(task.target)
        any_label |= known
        count = int(known.sum())
        if count < num_rows:
            notes.append(
                f"Target {task.spec.name!r}: {num_rows - count} of {num_rows} labels are missing; these rows do not count for it."
            )
        if count < _FEW_ROWS:
            notes.append(f"Few labels: target {task.spec.name!r} has {count}; intervals will be wide, and the verdict tentative.")
        notes += _rare_notes(task.spec, task.target)
    unlabelled = num_rows - int(any_label.sum())
    if unlabelled:
        notes.append(
            f"{unlabelled} rows have no label of any target; plans that learn from unlabelled rows use them for training, "
            f"others do not."
        )
    return notes


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
