"""What kind of task a column is: decided from its values and name, with a reason in words; the user can override it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.records import TaskKind, TaskSpec
from graftwork.data.encoders.columns import as_text, text_codes, to_numbers
from graftwork.data.names import check_names, did_you_mean, short_list
from graftwork.data.reading.scales import looks_like_scale_name, positive_word, word_order
from graftwork.data.reading.target_arrays import class_target, label_sets, multilabel_target, number_target, set_vocabulary

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMN_KINDS", "InferredTask", "TargetRequest", "infer_task", "infer_tasks", "parse_kind", "parse_targets"]

COLUMN_KINDS: tuple[str, ...] = tuple(kind for kind in get_args(TaskKind) if not kind.startswith("dense_"))
"""Kinds that a column of a table can be."""
_MAX_CODES = 20
_MAX_LEVELS = 10


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """One target that the user asked for."""

    name: str
    columns: tuple[str, ...]
    kind: str = ""
    """One of :data:`COLUMN_KINDS`; empty lets the values decide."""
    classes: tuple[str, ...] = ()
    """Class order given by the user."""
    metric: str = ""


@dataclass(frozen=True, slots=True)
class InferredTask:
    """A task, its target array, and why it was read this way."""

    spec: TaskSpec
    reason: str
    target: NDArray[Any]
    """Laid out as :class:`~graftwork.core.records.TaskSpec` says."""


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
        texts = ([targets] if targets in columns else targets.split(",")) if isinstance(targets, str) else list(targets)
        items = []
        for text in filter(None, (str(text).strip() for text in texts)):
            name, separator, rest = text.partition("=")
            parts = tuple(part.strip() for part in rest.split("+")) if separator and text not in columns else (text,)
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
    kind = kind.strip()
    if kind not in COLUMN_KINDS:
        raise ConfigError(
            f"The kind of target {name!r} is {kind!r}, which does not exist.{did_you_mean(kind, COLUMN_KINDS)} "
            f"Allowed are {', '.join(COLUMN_KINDS)}. Correct --task-kind {name}=..."
        )
    return kind, tuple(part.strip() for part in order.split("<") if part.strip())


def infer_tasks(
    frame: pd.DataFrame, requests: Sequence[TargetRequest], task_kinds: Mapping[str, str] | None = None
) -> list[InferredTask]:
    """Infer all tasks; overrides are ``{name: kind}``.

    Raises:
        DataError: All faulty targets at once.
        ConfigError: If an override names no target.
    """
    overrides = dict(task_kinds or {})
    names = [request.name for request in requests]
    for name in overrides:
        if name not in names:
            raise ConfigError(
                f"--task-kind names {name!r}, which is no target.{did_you_mean(name, names)} The targets are: {short_list(names)}."
            )
    tasks, problems = [], []
    for request in requests:
        if request.name in overrides:
            kind, classes = parse_kind(request.name, overrides[request.name])
            request = TargetRequest(request.name, request.columns, kind, classes or request.classes, request.metric)
        try:
            tasks.append(infer_task(frame, request))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(
            problems[0]
            if len(problems) == 1
            else "\n".join([f"{len(problems)} targets cannot be used.", *(f"  - {text}" for text in problems)])
        )
    return tasks


@dataclass(frozen=True, slots=True)
class _Cells:
    """One target column, read once."""

    values: pd.Series
    codes: NDArray[np.int64]
    levels: Sequence[str]
    order: Sequence[str] | None
    """Order of a categorical column."""

    @property
    def distinct(self) -> list[str]:
        return sorted(self.levels)

    @property
    def num_known(self) -> int:
        return int((self.codes >= 0).sum())

    @property
    def counts(self) -> list[int]:
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.levels)).tolist()


def infer_task(frame: pd.DataFrame, request: TargetRequest) -> InferredTask:
    """Infer one task from its column(s).

    Raises:
        DataError: If all labels are missing, there is only one class, a number is infinite, numbers and words are mixed, nearly all strings
            differ, or the values do not fit a kind that the user asked for.
    """
    if len(request.columns) > 1:
        return _several_columns(frame, request)
    name = request.name
    values = frame[request.columns[0]]
    if values.dtype == object and any(isinstance(value, (list, tuple, np.ndarray)) for value in values.tolist()):
        return _multilabel(request, values, "its cells are lists")
    cells = _Cells(values, *text_codes(values), _category_order(values))
    levels = cells.levels
    if not levels:
        raise DataError(f"Target {name!r}: all {len(values)} labels are missing. Fill in labels, or leave this target out.")
    if values.dtype.kind in "mM" or str(values.dtype).startswith("datetime64"):
        raise DataError(
            f"Target {name!r} holds dates ({levels[0]}); a target must be a number or a class. Turn it into a number, for example days since a start."
        )
    if len(levels) == 1 and request.kind != "multilabel":
        raise DataError(
            f"Target {name!r} has only one class or value: {levels[0]!r} in all {cells.num_known} labelled rows. "
            "There is nothing to learn; at least two are needed. Leave it out, or add rows with other values."
        )
    is_flag = set(levels) <= {"True", "False"}
    numbers, words = to_numbers(values) if cells.order is None and not is_flag else (np.zeros(0), ["x"])
    infinite = np.isinf(numbers)
    if infinite.any() and not words and request.kind in ("", "regression"):
        raise DataError(
            f"Target {name!r} has {int(infinite.sum())} infinite values, the first in row {int(np.argmax(infinite)) + 1}. "
            "Numbers must be finite. Replace them by a number, or leave the cells empty."
        )
    if request.kind:
        return _as_asked(request, cells, numbers, words)
    kind, reason = _kind_of_words(name, cells, numbers) if words else _kind_of_numbers(name, numbers)
    if kind == "multilabel":
        return _multilabel(request, values, reason)
    if kind == "regression":
        return _regression(request, numbers[:, None], reason)
    return _classes(request, kind, cells, _class_order(kind, cells, numeric=not words), reason)


def _kind_of_numbers(name: str, numbers: NDArray[np.float64]) -> tuple[TaskKind, str]:
    known = np.unique(numbers[~np.isnan(numbers)])
    if len(known) == 2:
        return "binary", f"two different values: {known[0]:g} and {known[1]:g}"
    whole = bool((known == np.round(known)).all())
    consecutive = whole and bool((np.diff(known) == 1).all())
    levels = f"{len(known)} whole numbers from {known[0]:g} to {known[-1]:g}"
    if consecutive and len(known) <= _MAX_LEVELS and looks_like_scale_name(name):
        return "ordinal", f"{levels} and a name that says they are steps of a scale"
    if consecutive and len(known) <= _MAX_CODES and known[0] in (0, 1):
        return "multiclass", f"{levels}, read as class numbers (ordinal and regression are possible overrides)"
    if whole and len(known) <= _MAX_LEVELS:
        return (
            "multiclass",
            f"only {len(known)} different whole numbers, read as class numbers (regression is a possible override)",
        )
    return "regression", f"numbers with {len(known)} different values"


def _kind_of_words(name: str, cells: _Cells, numbers: NDArray[np.float64]) -> tuple[TaskKind, str]:
    distinct = cells.distinct
    if set(distinct) <= {"True", "False"}:
        return "binary", "true and false"
    if len(distinct) == 2:
        return "binary", f"two different values: {distinct[0]} and {distinct[1]}"
    if cells.order is not None and getattr(cells.values.dtype, "ordered", False):
        return "ordinal", f"an ordered categorical: {' < '.join(cells.order[:8])}"
    if cells.order is None:
        numeric = sorted({cells.levels[code] for code in np.unique(cells.codes[~np.isnan(numbers)])})
        if len(numeric) >= 0.5 * len(distinct):
            words = [text for text in distinct if text not in set(numeric)]
            raise DataError(
                f"Target {name!r} mixes numbers ({short_list(map(repr, numeric), 3)}) and words ({short_list(map(repr, words), 3)}). "
                f"Make it all numbers (empty cells for unknown), or say --task-kind {name}=multiclass if all are names of classes."
            )
    order = word_order(distinct)
    if order is not None:
        return "ordinal", f"words of a known scale: {' < '.join(order)}"
    split = label_sets(cells.levels, cells.counts)
    if split is not None:
        return "multilabel", f"several labels in one cell, separated by {split}"
    if len(distinct) > 0.5 * cells.num_known and cells.num_known >= 20:
        raise DataError(
            f"Target {name!r} has {len(distinct)} different strings in {cells.num_known} labelled rows (for example {short_list(map(repr, distinct), 3)}): "
            "it looks like an identifier or free text, not like classes. A class needs several rows. Choose another column, or group the values."
        )
    return "multiclass", f"{len(distinct)} different words"


def _as_asked(request: TargetRequest, cells: _Cells, numbers: NDArray[np.float64], words: Sequence[str]) -> InferredTask:
    name, kind = request.name, request.kind
    if kind == "regression":
        if words:
            raise DataError(
                f"Target {name!r} is to be a regression but holds words ({short_list(words, 3)}). Make them numbers, or choose multiclass."
            )
        return _regression(request, numbers[:, None], "as asked")
    if kind == "multilabel":
        return _multilabel(request, cells.values, "as asked")
    distinct = cells.distinct
    order = list(request.classes) or _class_order(kind, cells, numeric=not words and bool(len(numbers)))
    unknown = sorted(set(distinct) - set(order))
    if unknown:
        raise DataError(
            f"Target {name!r} holds {short_list(map(repr, unknown))}, not among the classes given: {short_list(order)}. Add them to the list."
        )
    if kind == "binary" and len(order) != 2:
        raise DataError(
            f"Target {name!r} is to be binary but has {len(order)} different values ({short_list(order, 5)}). Choose multiclass."
        )
    if kind == "ordinal" and not request.classes and cells.order is None and words and word_order(distinct) is None:
        raise DataError(
            f"Target {name!r} is to be ordinal but the order of its words is not known ({short_list(distinct, 6)}). "
            f"Give it from low to high: --task-kind '{name}=ordinal: {' < '.join(distinct[:3])}'."
        )
    return _classes(request, kind, cells, order, "as asked")


def _category_order(values: pd.Series) -> list[str] | None:
    """Return the levels of a categorical column that occur, in its order; None for other columns."""
    if str(values.dtype) != "category":
        return None
    present = {as_text(value) for value in values.tolist()}
    return [text for text in map(as_text, values.cat.categories.tolist()) if text is not None and text in present]


def _class_order(kind: str, cells: _Cells, *, numeric: bool) -> list[str]:
    order = cells.distinct
    if numeric:
        return sorted(order, key=float)
    if kind == "ordinal":
        return list(cells.order) if cells.order is not None else word_order(order) or order
    if kind == "binary" and len(order) == 2 and positive_word(order) == order[0]:
        order.reverse()
    return order


def _classes(request: TargetRequest, kind: str, cells: _Cells, order: Sequence[str], reason: str) -> InferredTask:
    if kind == "ordinal" and len(order) == 2:
        kind, reason = "binary", f"{reason}; two levels are a binary task"
    size = 1 if kind == "binary" else len(order)
    spec = TaskSpec(
        name=request.name, kind=_kind(kind), size=size, classes=tuple(order), columns=request.columns, metric=request.metric
    )
    return InferredTask(spec, reason, class_target(cells.codes, cells.levels, order))


def _regression(request: TargetRequest, numbers: NDArray[np.float64], reason: str) -> InferredTask:
    spec = TaskSpec(name=request.name, kind="regression", size=numbers.shape[1], columns=request.columns, metric=request.metric)
    return InferredTask(spec, reason, number_target(request.name, numbers))


def _multilabel(request: TargetRequest, values: pd.Series, reason: str) -> InferredTask:
    labels = request.classes or set_vocabulary(request.name, values)
    spec = TaskSpec(
        name=request.name,
        kind="multilabel",
        size=len(labels),
        classes=tuple(labels),
        columns=request.columns,
        metric=request.metric,
    )
    return InferredTask(spec, f"{reason}; {len(labels)} labels", multilabel_target(request.name, values, labels))


def _several_columns(frame: pd.DataFrame, request: TargetRequest) -> InferredTask:
    name, columns = request.name, request.columns
    parts = [to_numbers(frame[column]) for column in columns]
    words = [f"{column}: {short_list(bad, 2)}" for column, (_, bad) in zip(columns, parts) if bad]
    if words:
        raise DataError(
            f"Target {name!r} of several columns needs numbers in all of them; got words in {short_list(words)}. Use only numeric columns."
        )
    numbers = np.stack([values for values, _ in parts], axis=1)
    if np.isnan(numbers).all():
        raise DataError(
            f"Target {name!r}: all labels of its columns {short_list(columns)} are missing. Fill in labels, or leave it out."
        )
    if np.isinf(numbers).any():
        raise DataError(
            f"Target {name!r} has infinite values in {short_list(c for c, v in zip(columns, numbers.T) if np.isinf(v).any())}. Numbers must be finite."
        )
    flags = set(np.unique(numbers[~np.isnan(numbers)])) <= {0.0, 1.0}
    kind = request.kind or ("multilabel" if flags else "regression")
    if kind == "multilabel":
        if not flags:
            raise DataError(
                f"Target {name!r} is to be multilabel, so its columns may hold 0 and 1 only. Choose regression, or repair the columns."
            )
        spec = TaskSpec(name=name, kind="multilabel", size=len(columns), classes=columns, columns=columns, metric=request.metric)
        return InferredTask(spec, f"{len(columns)} columns of 0 and 1", numbers.astype(np.float32))
    if kind != "regression":
        raise DataError(
            f"Target {name!r} has several columns, so it can be multilabel or regression; got {kind!r}. Name one column for other kinds."
        )
    return _regression(request, numbers, f"{len(columns)} numeric columns read as one vector")


def _kind(text: str) -> TaskKind:
    for kind in get_args(TaskKind):
        if kind == text:
            return kind  # type: ignore[no-any-return]
    raise ConfigError(f"Unknown task kind {text!r}; allowed are {re.sub('[()]', '', str(COLUMN_KINDS))}.")
