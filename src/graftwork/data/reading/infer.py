"""What kind of task a column is: decided from its values and name, with a reason in words; the user can override it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.kinds import find_kind
from graftwork.data.names import check_names, did_you_mean, short_list
from graftwork.data.reading.label_lists import split_cells
from graftwork.data.reading.scales import looks_like_scale_name, word_order
from graftwork.data.reading.siblings import looks_like_amount_name, shared_values
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.target_arrays import check_finite, label_sets, numeric_columns
from graftwork.data.reading.target_cells import InferredTask, TargetCells, TargetRequest
from graftwork.interfaces.task_kind import TaskKind, column_kinds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["InferredTask", "TargetRequest", "infer_task", "infer_tasks", "parse_kind", "parse_targets"]

_MAX_CODES = 20
_MAX_LEVELS = 10


def parse_targets(
    targets: str | Sequence[str] | Mapping[str, str | Sequence[str]], columns: Sequence[str]
) -> list[TargetRequest]:
    """Read ``"price,tags=a+b+c"`` (or a list, or a mapping name -> columns) into requests.

    Args:
        targets: What the user asked for; ``name=a+b+c`` makes one task of several columns.
        columns: Columns of the table.

    Raises:
        DataError: If a column does not exist (with the nearest match), or a name comes twice.
    """
    if isinstance(targets, Mapping):
        items = [(name, (value,) if isinstance(value, str) else tuple(value)) for name, value in targets.items()]
    else:
        listed = targets.split(",") if isinstance(targets, str) else list(targets)
        whole = ",".join(map(str, listed))
        texts = [whole] if whole in columns else listed  # a column may be called "a,b"
        items = []
        for text in filter(None, (str(text).strip() for text in texts)):
            name, separator, rest = text.partition("=")
            parts = tuple(part.strip() for part in rest.split("+")) if separator and text not in columns else (text,)
            # A column may be called "a=b"; then it is one column and no task named a.
            items.append((name.strip() if parts != (text,) else text, parts))
    if not items:
        raise DataError(
            f"No target is named. Name one or several columns with --targets a,b. The columns are: {short_list(columns, 40)}."
        )
    check_names([part for _, parts in items for part in parts], columns, what="--targets", where="the table")
    names = [name for name, _ in items]
    used = [part for _, parts in items for part in parts]
    for what, values in (("target", names), ("column", used)):
        doubled = sorted({value for value in values if values.count(value) > 1})
        if doubled:
            raise DataError(f"--targets names the {what} {short_list(map(repr, doubled))} more than once. Name each once.")
    return [TargetRequest(name, parts) for name, parts in items]


def parse_kind(name: str, text: str) -> tuple[str, tuple[str, ...]]:
    """Read an override such as ``"regression"`` or ``"ordinal: low < mid < high"`` into kind and classes.

    Raises:
        ConfigError: If the kind is unknown.
    """
    kind, _, order = str(text).partition(":")
    kind, allowed = kind.strip(), column_kinds()
    if kind not in allowed:
        raise ConfigError(
            f"The kind of target {name!r} is {kind!r}, which does not exist.{did_you_mean(kind, allowed)} "
            f"Allowed are {', '.join(allowed)}. Correct --task-kind {name}=..."
        )
    return kind, tuple(part.strip() for part in order.split("<") if part.strip())


def infer_tasks(
    frame: pd.DataFrame | Table,
    requests: Sequence[TargetRequest],
    task_kinds: Mapping[str, str] | None = None,
    split_labels: str | None = None,
) -> list[InferredTask]:
    """Infer all tasks; overrides are ``{name: kind}``, and ``split_labels`` is what separates labels in one cell (see
    :func:`~graftwork.data.reading.label_lists.split_cells`).

    Raises:
        DataError: All faulty targets at once.
        ConfigError: If an override names no target.
    """
    overrides = dict(task_kinds or {})
    names = [request.name for request in requests]
    for name in overrides:
        if name not in names:
            raise ConfigError(
                f"--task-kind names {name!r}, which is no target.{did_you_mean(name, names)} The targets are: "
                f"{short_list(names)}."
            )
    tasks, problems = [], []
    table = as_table(frame)
    asked = [_overridden(request, overrides.get(request.name)) for request in requests]
    split = split_cells(table, asked, split_labels)
    shared = shared_values(table, asked)
    for request in asked:
        try:
            if request.name in split:
                cells, sign = split[request.name]
                tasks.append(_kind("multilabel").read_column(request, cells, f"its cells are split at {sign!r}, as asked"))
                continue
            tasks.append(infer_task(table, request, shared.get(request.name)))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(
            problems[0]
            if len(problems) == 1
            else "\n".join([f"{len(problems)} targets cannot be used.", *(f"  - {text}" for text in problems)])
        )
    return tasks


def _overridden(request: TargetRequest, override: str | None) -> TargetRequest:
    if override is None:
        return request
    kind, classes = parse_kind(request.name, override)
    return replace(request, kind=kind, classes=classes or request.classes)


def infer_task(frame: pd.DataFrame | Table, request: TargetRequest, shared: NDArray[np.float64] | None = None) -> InferredTask:
    """Infer one task from its column(s).

    Args:
        frame: The table.
        request: What is asked for.
        shared: The different values of this target and its siblings; see :func:`~graftwork.data.reading.siblings.shared_values`.

    Raises:
        DataError: If all labels are missing, there is only one class, a number is infinite, numbers and words are mixed, nearly
            all strings differ, or the values do not fit a kind that the user asked for.
    """
    table = as_table(frame)
    if len(request.columns) > 1:
        return _several_columns(table, request)
    name = request.name
    column = table[request.columns[0]]
    if column.is_nested:
        kind = _kind(request.kind or "multilabel")
        if not kind.reads_lists:
            raise DataError(
                f"Target {name!r} is to be {kind.name}, but its cells are lists. Choose multilabel, or one value a cell."
            )
        return kind.read_column(request, TargetCells.of_lists(column.cells), "its cells are lists")
    if not column.num_levels:
        raise DataError(f"Target {name!r}: all {len(column)} labels are missing. Fill in labels, or leave this target out.")
    if column.machine_kind == "M":
        raise DataError(
            f"Target {name!r} holds dates ({column.levels[0]}); a target must be a number or a class. Turn it into a number, "
            f"for example days since a start."
        )
    cells = TargetCells.of(column)
    levels = cells.levels
    # With several labels a cell, "all rows have this one set" can still be learned from.
    if len(levels) == 1 and not (request.kind and _kind(request.kind).one_value_suffices):
        raise DataError(
            f"Target {name!r} has only one class or value: {levels[0]!r} in all {cells.num_known} labelled rows. "
            "There is nothing to learn; at least two are needed. Leave it out, or add rows with other values; if an empty cell means "
            "another class, write that class into it."
        )
    if request.kind:
        return _with_notes(_kind(request.kind).read_column(request, cells, "as asked"), cells)
    check_finite(name, cells)
    found, reason = _kind_of_words(name, cells) if cells.words else _kind_of_numbers(name, cells.numbers, shared)
    return _with_notes(_kind(found).read_column(request, cells, reason), cells)


def _with_notes(task: InferredTask, cells: TargetCells) -> InferredTask:
    return replace(task, notes=(*task.notes, *cells.notes))


def _kind(name: str) -> TaskKind:
    return cast(TaskKind, find_kind(name))


def _kind_of_numbers(name: str, numbers: NDArray[np.float64], shared: NDArray[np.float64] | None) -> tuple[str, str]:
    """Return the kind of a column of numbers, and why.

    Only codes that follow each other are classes; whole numbers with gaps are counts or amounts.

    Args:
        name: The target.
        numbers: Its cells.
        shared: The different values of all its siblings, if it has any: they decide together.
    """
    own = np.unique(numbers[~np.isnan(numbers)])
    known = own if shared is None else shared
    of_all = "" if shared is None or len(known) == len(own) else ", its siblings' included"
    consecutive = bool((known == np.round(known)).all()) and bool((np.diff(known) == 1).all())
    what = "whole numbers" if (known == np.round(known)).all() else "different numbers"
    levels = f"{len(known)} {what} from {known[0]:.15g} to {known[-1]:.15g}{of_all}"
    is_class = consecutive and len(known) <= _MAX_CODES and known[0] in (0, 1) and not looks_like_amount_name(name)
    if len(own) == 2 and (len(known) == 2 or is_class or bool(own[1] - own[0] == 1)):
        return "binary", f"two different values: {own[0]:.15g} and {own[1]:.15g}"
    if consecutive and len(known) <= _MAX_LEVELS and looks_like_scale_name(name):
        return "ordinal", f"{levels} and a name that says they are steps of a scale"
    if is_class:
        return "multiclass", f"{levels}, read as class numbers (ordinal and regression are possible overrides)"
    if len(own) <= _MAX_LEVELS:
        why = "with a name of amounts" if consecutive and looks_like_amount_name(name) else "that are no codes in a row"
        return "regression", f"{levels} {why}" if not of_all else f"{len(own)} values of {levels}"
    return "regression", f"numbers with {len(own)} different values"


def _kind_of_words(name: str, cells: TargetCells) -> tuple[str, str]:
    distinct, numbers = cells.distinct, cells.numbers
    if set(distinct) <= {"True", "False"}:
        return "binary", "true and false"
    if len(distinct) == 2:
        return "binary", f"two different values: {distinct[0]} and {distinct[1]}"
    if cells.order is not None and getattr(cells.values.dtype, "ordered", False):
        return "ordinal", f"an ordered categorical: {' < '.join(cells.order[:8])}"
    if cells.order is None:
        numeric = sorted({cells.levels[code] for code in np.unique(cells.codes[~np.isnan(numbers)])})
        # A few words among numbers were already read as missing; this many are a mistake.
        if len(numeric) >= 0.5 * len(distinct):
            words = [text for text in distinct if text not in set(numeric)]
            raise DataError(
                f"Target {name!r} mixes numbers ({short_list(map(repr, numeric), 3)}) and words "
                f"({short_list(map(repr, words), 3)}). Make it all numbers (empty cells for unknown), or say --task-kind "
                f"{name}=multiclass if all are names of classes."
            )
    order = word_order(distinct)
    if order is not None:
        return "ordinal", f"words of a known scale: {' < '.join(order)}"
    split = label_sets(cells.levels, cells.counts)
    if split is not None:
        return "multilabel", f"several labels in one cell, separated by {split}"
    # More than half of the values are single: no class would have rows to learn from.
    if len(distinct) > 0.5 * cells.num_known and cells.num_known >= 20:
        raise DataError(
            f"Target {name!r} has {len(distinct)} different strings in {cells.num_known} labelled rows (for example "
            f"{short_list(map(repr, distinct), 3)}): it looks like an identifier or free text, not like classes. A class "
            "needs several rows. Choose another column, or group the values."
        )
    return "multiclass", f"{len(distinct)} different words"


def _several_columns(table: Table, request: TargetRequest) -> InferredTask:
    if request.kind:
        return _kind(request.kind).read_columns(request, table)
    numbers = numeric_columns(request, table)
    flags = set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}
    return _kind("multilabel" if flags else "regression").read_columns(request, table)
