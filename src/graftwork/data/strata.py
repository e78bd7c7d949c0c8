"""How rows and groups are dealt out so that every part has its share of every label. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.records import TaskSpec
from graftwork.interfaces.task_kind import LabelColumn, task_kind

__all__ = ["assign_groups", "assign_rows", "label_matrix", "repair_rare_labels"]

Array = NDArray[Any]
Index = NDArray[np.int64]

_MANY_LABELS = 1000
"""Up to so many labels every part gets a row of each."""


def label_matrix(tasks: Sequence[TaskSpec], targets: Mapping[str, Array], domain: Index | None) -> Index:
    """Return the labels of each row as numbers, int64 ``[N, K]``; -1 where there is none.

    Every column is one source of labels: the domain, and what each task's kind names (a class column, one column per label of a
    multi-label task, quarters of each regression value, the commonest class of a map). Numbers are unique over columns, so that
    one count serves all.
    """
    columns: list[Index] = [] if domain is None else [np.asarray(domain, dtype=np.int64)]
    for task in tasks:
        columns += [_numbered(column) for column in task_kind(task).strata(task, np.asarray(targets[task.name]))]
    offset = 0
    numbered = []
    for column in columns:
        # Each source of labels has a range of numbers of its own.
        numbered.append(np.where(column >= 0, column + offset, -1))
        offset += int(column.max(initial=-1)) + 1
    num_rows = len(next(iter(targets.values())))
    return np.stack(numbered, axis=1) if numbered else np.full((num_rows, 1), -1, dtype=np.int64)


def _numbered(column: LabelColumn) -> Index:
    """Return one source of labels as numbers: classes as they are, rows to which a flag applies, quarters of numbers."""
    if column.form == "classes":
        return column.values.astype(np.int64)
    return np.where(column.values == 1, 0, -1).astype(np.int64) if column.form == "flag" else _quarters(column.values)


def _quarters(values: Array) -> Index:
    known = ~np.isnan(values)
    result = np.full(len(values), -1, dtype=np.int64)
    if known.any():
        # Ties can make quartiles equal.
        edges = np.unique(np.quantile(values[known], [0.25, 0.5, 0.75]))
        result[known] = np.searchsorted(edges, values[known], side="right")
    return result


def _counts(labels: Index) -> Index:
    present = labels[labels >= 0]
    return np.bincount(present, minlength=int(labels.max(initial=-1)) + 1)


def assign_rows(labels: Index, shares: NDArray[np.float64], generator: np.random.Generator) -> Index:
    """Deal rows out, int64 ``[N]`` of part numbers.

    Rows are sorted by their rarest label, then by the next rarest, and so on, with ties in random order; going down that list
    each row goes to the part that lags behind most. Any run of equal labels is thereby spread in proportion (systematic
    sampling).
    """
    counts = _counts(labels)
    order_of = np.empty(len(counts) + 1, dtype=np.int64)
    # The inverse of the order: for each label its rank, the rarest first.
    order_of[:-1] = np.argsort(np.lexsort((np.arange(len(counts)), counts)))
    order_of[-1] = len(counts)  # the number of "no label": after all others
    # Sorted within a row: its rarest label first. Eight are plenty to tell rows apart.
    keys = np.sort(order_of[labels], axis=1)[:, :8]
    # lexsort takes its last key first, so the columns are turned round; the random numbers break ties.
    order = np.lexsort((generator.random(len(labels)), *keys.T[::-1]))
    part = np.empty(len(labels), dtype=np.int64)
    part[order] = _proportional_sequence(len(labels), shares, generator)
    return part


def _proportional_sequence(length: int, shares: NDArray[np.float64], generator: np.random.Generator) -> Index:
    """Return part numbers whose every prefix has the wanted shares to within one, starting at a random phase."""
    positions = []
    parts = []
    for part, share in enumerate(shares):
        # Two more than the share, so that no part runs out before the end.
        count = int(np.ceil(length * share)) + 2
        # A part with share s comes every 1/s rows; sorted by position, each prefix has its shares.
        positions.append((np.arange(count) + generator.random()) / share)
        parts.append(np.full(count, part, dtype=np.int64))
    order = np.argsort(np.concatenate(positions), kind="stable")
    return np.concatenate(parts)[order][:length]


def repair_rare_labels(part: Index, labels: Index) -> Index:
    """Return ``part`` changed so that every label has a row in part 0, and labels of five rows or more one in every part.

    Rows move only where a label would be missing, the last step fills part 0, so that its guarantee always holds. Other parts stay as
    they are if there are more labels than half of their rows.
    """
    part = part.copy()
    num_parts = int(part.max(initial=0)) + 1
    counts = _counts(labels)
    table = np.zeros((len(counts), num_parts), dtype=np.int64)
    for column in labels.T:
        known = column >= 0
        np.add.at(table, (column[known], part[known]), 1)
    for wanted in [*range(1, num_parts), 0]:
        # Fewer than five rows are best used for training.
        enough = counts >= (1 if wanted == 0 else 5)
        # Ten thousand classes in some thousand rows: a row of each would make another part of it.
        if wanted and enough.sum() > 0.5 * (part == wanted).sum() and enough.sum() > _MANY_LABELS:
            continue
        for label in np.flatnonzero(enough & (table[:, wanted] == 0)):
            if table[label, wanted]:  # an earlier move brought one along
                continue
            rows = np.flatnonzero((labels == label).any(axis=1))
            donor = int(np.argmax(table[label]))
            row = rows[part[rows] == donor][0]
            # The row takes all its labels along.
            own = labels[row][labels[row] >= 0]
            table[own, donor] -= 1
            table[own, wanted] += 1
            part[row] = wanted
    return part


def assign_groups(
    unit: Index,
    labels: Index,
    labelled: NDArray[np.bool_],
    has_label: NDArray[np.bool_],
    shares: NDArray[np.float64],
    generator: np.random.Generator,
) -> Index:
    """Deal groups out, largest first, each to the part that lacks its rows and labels most.

    Args:
        unit: Group number of each row, ``[N]``, from 0 to ``G - 1``.
        labels: :func:`label_matrix`, ``[N, K]``.
        labelled: Which rows have a label, ``[N]``.
        has_label: Which groups have one, ``[G]``; the others go to part 0.
        shares: Wanted share of each part.
        generator: Breaks ties.

    Returns:
        Part number of each group, ``[G]``.
    """
    num_groups, num_labels = len(has_label), int(labels.max(initial=-1)) + 1
    sizes = np.bincount(unit, weights=labelled, minlength=num_groups)
    part = np.zeros(num_groups, dtype=np.int64)
    # Largest first, since the small ones can still even things out.
    order = np.lexsort((generator.random(num_groups), -sizes))
    order = order[has_label[order]]
    # Rows of a group stand together, so that each group is a slice.
    by_unit = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[by_unit], np.arange(num_groups + 1))
    totals = np.concatenate([_counts(labels), [sizes.sum()]]).astype(np.float64)
    need = totals[None, :] * shares[:, None]
    filled = np.zeros_like(need)
    # Squared relative errors; all labels together weigh as much as the number of rows.
    weight = np.append(np.ones(num_labels) / max(num_labels, 1), 1.0) / np.maximum(totals, 1.0) ** 2
    left = len(order)
    empty = set(range(len(shares)))
    for group in order:
        rows = by_unit[starts[group] : starts[group + 1]]
        own = np.append(np.bincount(labels[rows][labels[rows] >= 0], minlength=num_labels), sizes[group])
        # Squared distance to the wanted totals; only the change by this group differs between parts.
        change = (weight * own * (own + 2.0 * (filled - need)) / shares[:, None]).sum(axis=1)
        if left <= len(empty):  # every part must get a group
            change[[index for index in range(len(shares)) if index not in empty]] = np.inf
        chosen = int(np.argmin(change))
        part[group] = chosen
        filled[chosen] += own
        empty.discard(chosen)
        left -= 1
    return part
