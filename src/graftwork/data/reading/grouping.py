"""Columns that group rows (persons, sites, houses): found by their names, and by how much their values say about targets and
columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graftwork.data.names import short_list
from graftwork.data.reading.column import Column
from graftwork.data.reading.group_names import is_count_name, is_group_name, is_id_name, is_kind_name, is_person_name
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.target_cells import InferredTask
from graftwork.data.reading.within_groups import class_share, mean_ranks, neighbour_share, number_share, some_groups
from graftwork.interfaces.task_kind import LabelColumn, task_kind

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FoundGroup", "find_group", "group_notes"]

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]

_FEWEST_GROUPS, _FEWEST_UNNAMED = 10, 20
"""Groups that a split needs; a column without a telling name needs more values, since regions and grades are no groups."""
_NAMED, _UNNAMED, _UNNAMED_CLASSES = 0.7, 0.9, 0.95
"""Share of a target's variance that lies between groups: "nearly determined". Classes are often told by a plain quantity."""
_ALIKE, _EQUAL = 0.3, 0.95
"""Shares of a column's variance between groups: a column that groups say something of, and one that they determine."""
_FOLLOWS = 0.5
"""A number whose neighbours say so much about it is a quantity, no id."""
_MOST_ROWS, _MOST_COLUMNS, _MOST_LABELS = 20_000, 40, 40
_FEWEST_REPEATS = 20


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """What was found about rows that belong together."""

    column: str = ""
    """The column whose rows are to stay on one side of every split; empty if there is none."""
    reason: str = ""
    """Why, for a sentence that begins with the column."""
    crossing: str = ""
    """Why scores of a split by rows say little, if the rows cannot be split by group; empty otherwise."""


@dataclass(frozen=True, slots=True)
class _Values:
    """The values of a column that may group rows."""

    codes: Codes
    """``[N]``, -1 where missing."""
    number: int
    """Different values."""
    positions: Floats | None
    """The values themselves, ``[number]``, if they are numbers."""

    @property
    def known(self) -> int:
        return int((self.codes >= 0).sum())


def _values_of(column: Column) -> _Values | None:
    """Return the values of a column of words or whole numbers; None for all others."""
    if column.kind == "categorical":
        return _Values(column.codes, len(column.levels), None)
    if column.kind != "numeric":
        return None
    numbers = column.numbers().values
    known = ~np.isnan(numbers)
    found = numbers[known]
    # The first rows decide for nearly all measurements.
    if not (found[:50] == np.round(found[:50])).all() or not np.isfinite(found).all() or not (found == np.round(found)).all():
        return None
    distinct, inverse = np.unique(found, return_inverse=True)
    codes = np.full(len(numbers), -1, dtype=np.int64)
    codes[known] = inverse
    return _Values(codes, len(distinct), distinct)


@dataclass(frozen=True, slots=True)
class _Candidate:
    name: str
    values: _Values
    shares: tuple[float, ...]
    """Share between groups of each label column."""
    is_person: bool
    is_named: bool

    @property
    def middle(self) -> float:
        return float(np.median(self.shares))


def find_group(frame: pd.DataFrame | Table, candidates: Sequence[str], tasks: Sequence[InferredTask]) -> FoundGroup:
    """Find the column whose rows belong together, so that a split by rows would give targets away.

    It holds words or whole numbers that repeat and do not rise or fall with the targets as a quantity does, and:

    - its name says a person or household, and at least 70 % of the variance of a target lies between its values, or
    - its name says a site, device and the like, and so it is with half of the targets, and other columns are alike too, or
    - it has any other name, 20 values or more, and at least 90 % (95 % of classes) lies between them for half of the targets, and
      other columns are alike too. A category that determines a target, but nothing else, is a feature; so is one whose name
      says a kind of thing, a region or a time (``model``, ``city``, ``month``), since new rows will be of those that are known.

    Other columns are alike if two of them are equal within nearly all groups (recodings of the column do not count), or a third
    of them has 30 % of its variance between groups. All shares are corrected for chance.

    Args:
        frame: The raw table.
        candidates: Columns that are no targets; those that are not learned from count as well.
        tasks: The tasks, with their targets.
    """
    table = as_table(frame)
    labels = _label_columns(tasks)
    if not labels:
        return FoundGroup()
    found = [
        candidate
        for name in candidates
        if (candidate := _candidate(table[name], labels)) is not None
        and (candidate.is_person or _alike(table, candidate, candidates))
    ]
    if not found:
        return FoundGroup()
    best = _best(found)
    crossing = [other.name for other in found if other is not best and not _kept_together(other.values, best.values)]
    count, share = best.values.number, max(best.shares) if best.is_person else best.middle
    each = best.values.known / count
    reason = f"{count} values, {each:.0f} rows each on average, and {share:.0%} of the targets' spread between them"
    if count < _FEWEST_GROUPS:
        needed = f"{_FEWEST_GROUPS} values are needed to split by it"
        return FoundGroup(crossing=f"rows of one {best.name} are on both sides of the splits ({reason}; {needed})")
    more = f"; rows of one {short_list(crossing, 3)} may still be on both sides, which --group changes" if crossing else ""
    return FoundGroup(best.name, reason + more)


def _candidate(column: Column, labels: Sequence[LabelColumn]) -> _Candidate | None:
    """Return a column if the targets say that it may group rows."""
    values = _values_of(column)
    if values is None:
        return None
    is_named = _names_a_group(column)
    if not is_named and is_kind_name(column.name):
        return None
    is_person = is_named and is_person_name(column.name)
    if values.number < (2 if is_person else _FEWEST_GROUPS if is_named else _FEWEST_UNNAMED):
        return None
    repeats = values.known - values.number
    least = max(_FEWEST_REPEATS, 0.1 * values.known if is_person else 0.5 * values.known)
    if repeats < least:
        return None
    # One value in most rows is no group but the usual case.
    if np.bincount(values.codes[values.codes >= 0]).max() > 0.5 * values.known:
        return None
    rows = some_groups(values.codes, _MOST_ROWS)
    groups = values.codes[rows]
    shares = tuple(_label_share(groups, label, rows) for label in labels)
    needed = [_NAMED if is_named else _UNNAMED if label.form == "number" else _UNNAMED_CLASSES for label in labels]
    surplus = np.array(shares) - needed
    if (surplus.max() if is_person else np.median(surplus)) < 0 or (
        values.positions is not None and _follows(groups, values.positions, labels, rows)
    ):
        return None
    return _Candidate(column.name, values, shares, is_person, is_named)


def _label_columns(tasks: Sequence[InferredTask]) -> list[LabelColumn]:
    columns = [column for task in tasks for column in task_kind(task.spec).label_columns(task.spec, task.target)]
    # Evenly over all targets: forty settle a median.
    columns = columns[:: max(1, -(-len(columns) // _MOST_LABELS))]
    return [
        LabelColumn("number", mean_ranks(np.asarray(column.values, dtype=np.float64))) if column.form == "number" else column
        for column in columns
    ]


def _label_share(groups: Codes, label: LabelColumn, rows: Codes) -> float:
    if label.form == "classes":
        return class_share(groups, np.asarray(label.values, dtype=np.int64)[rows])
    return number_share(groups, np.asarray(label.values, dtype=np.float64)[rows])


def _follows(groups: Codes, positions: Floats, labels: Sequence[LabelColumn], rows: Codes) -> bool:
    """Return whether the targets of a number follow from those of its neighbours, as they do for quantities."""
    shares = []
    for label in labels:
        values = np.asarray(label.values, dtype=np.float64)[rows]
        if label.form == "classes":
            # As one number per class, most frequent class against the rest.
            known = values[values >= 0].astype(np.int64)
            values = np.where(values < 0, np.nan, values == np.bincount(known).argmax()) if len(known) else values
        shares.append(neighbour_share(groups, positions, values))
    return float(np.median(shares)) > _FOLLOWS


def _alike(table: Table, candidate: _Candidate, names: Sequence[str]) -> bool:
    """Return whether other columns say as well that equal values belong together."""
    others = [name for name in names if name != candidate.name and table[name].kind in ("numeric", "categorical")]
    others = others[:: max(1, -(-len(others) // _MOST_COLUMNS))]
    rows = some_groups(candidate.values.codes, _MOST_ROWS)
    groups = candidate.values.codes[rows]
    shares = []
    for name in others:
        column = table[name]
        whole = _values_of(column)
        if column.kind == "categorical":
            share = class_share(groups, column.codes[rows])
        else:
            numbers = column.numbers().values[rows]
            share = number_share(groups, mean_ranks(np.where(np.isfinite(numbers), numbers, np.nan)))
        # A code for the name of a region says nothing more than the name.
        if whole is not None and share >= _EQUAL and whole.number >= 0.9 * candidate.values.number:
            continue
        shares.append(share)
    known = np.array(shares)
    return bool((known >= _EQUAL).sum() >= 2 or (known >= _ALIKE).sum() >= max(1, len(known) / 3))


def _best(found: Sequence[_Candidate]) -> _Candidate:
    """Return persons first, then other telling names, then what determines the targets best; of equals the one with fewest
    groups."""
    rank = max((candidate.is_person, candidate.is_named) for candidate in found)
    first = [candidate for candidate in found if (candidate.is_person, candidate.is_named) == rank]
    top = max(candidate.middle for candidate in first)
    return min((one for one in first if one.middle >= top - 0.03), key=lambda one: one.values.number)


def _kept_together(values: _Values, groups: _Values) -> bool:
    """Return whether rows of equal values are in one group, in nearly all cases."""
    known = (values.codes >= 0) & (groups.codes >= 0)
    pairs = np.unique(values.codes[known] * groups.number + groups.codes[known])
    spread = np.bincount(pairs // groups.number, minlength=values.number)
    return bool((spread > 1).mean() <= 0.05)


def group_notes(frame: pd.DataFrame | Table, candidates: Sequence[str], group: str | None) -> list[str]:
    """Point out columns that look like groups (patient, user, site) which the user did not name.

    A column counts if its name says so, or if it is made of words or whole numbers and rows of equal value are much alike in the
    other columns; in both cases with values that repeat.
    """
    if group is not None:
        return []
    table = as_table(frame)
    notes: list[str] = []
    found: list[str] = []
    numbers: dict[str, Floats] | None = None
    for name in candidates:
        values = _values_of(table[name])
        # A group has at least two rows on average; one value alone groups nothing.
        if values is None or not 2 <= values.number <= values.known // 2:
            continue
        # A column called "code" with three values is a category.
        named = _names_a_group(table[name]) or (is_id_name(name) and values.number >= 10)
        alike = 0.0
        # With few values any two columns are alike by chance, and the name says it already.
        if not named and values.number >= 20:
            numbers = _standard_numbers(table, candidates) if numbers is None else numbers
            alike = _likeness(values.codes, {key: item for key, item in numbers.items() if key != name})
        if named or alike > 0.6:
            found.append(name)
            why = (
                "by its name"
                if named
                else f"since rows of one value are much alike ({alike:.0%} of the spread lies between values)"
            )
            advice = (
                f"Keep such rows together with --group {name}."
                if values.number >= _FEWEST_GROUPS
                else f"With {values.number} values it cannot be split by group; read the scores with care."
            )
            notes.append(
                f"Column {name!r} looks like a group {why}: {values.number} values, {values.known / values.number:.0f} rows each "
                f"on average. Rows of one {name} may land on both sides of a split. {advice}"
            )
    if len(notes) <= 3:
        return notes
    return [
        f"{len(notes)} columns look like groups, by their names or since rows of one value are much alike: "
        f"{short_list(map(repr, found), 3)}. Rows of one group may land on both sides of a split; --group keeps those of one "
        "column together."
    ]


def _names_a_group(column: Column) -> bool:
    """Return whether a column's name says that equal values belong together; numbers of ``visits`` are counts."""
    is_count = is_count_name(column.name) and column.kind == "numeric" and not column.is_category
    return is_group_name(column.name) and not is_count


def _standard_numbers(table: Table, candidates: Sequence[str]) -> dict[str, Floats]:
    numbers: dict[str, Floats] = {}
    for name in candidates:
        column = table[name]
        if column.kind != "numeric" or column.machine_kind == "b":
            continue
        values = column.numbers().values
        finite = np.isfinite(values)
        if finite.sum() > 1 and values[finite].std() > 0:
            # Missing cells in the middle: they make rows neither alike nor different.
            numbers[name] = np.where(finite, values, np.median(values[finite]))
        # 20 columns settle a median.
        if len(numbers) == 20:
            break
    return numbers


def _likeness(codes: Codes, numbers: dict[str, Floats]) -> float:
    """Return the median share of variance between groups, corrected for chance (1 = rows of a group are equal)."""
    if len(numbers) < 2:
        return 0.0
    return float(np.median([number_share(codes, values) for values in numbers.values()]))
