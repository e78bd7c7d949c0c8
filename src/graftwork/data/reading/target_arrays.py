"""From cells to target arrays: class numbers, label sets and values, laid out as ``TaskSpec`` says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import short_list
from graftwork.data.reading.cells import as_text
from graftwork.data.reading.table import Table, as_table
from graftwork.data.reading.target_cells import TargetCells, TargetRequest

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "check_finite",
    "class_target",
    "label_sets",
    "multilabel_target",
    "number_target",
    "numeric_columns",
    "origin_of",
    "set_vocabulary",
]

_HARD = re.compile(r"\s*[;|]\s*")
_SOFT = re.compile(r"\s*,\s*")
_MAX_LABELS = 500
_LOST = 1e-3
"""Rounding error, in standard deviations of a target, that is too much."""


def class_target(codes: NDArray[np.int64], levels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return class numbers, int64 ``[N]``, -1 where the cell is missing.

    Args:
        codes: Level of each row, -1 where missing (see ``text_codes``).
        levels: Names of the levels, all of them classes.
        classes: Names of the classes in order.
    """
    index = {name: number for number, name in enumerate(classes)}
    return np.array([*(index[level] for level in levels), -1], dtype=np.int64)[codes]


def origin_of(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the whole number to subtract from each column so that float32 keeps its values apart; empty if it does as they are.

    Values far from zero with a small spread (5,000,000 m +- 15, seconds since 1970) would become few different ones: float32 has
    7 digits.

    Args:
        numbers: ``[N, size]``, NaN where missing.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # What float32 would lose of each value.
        lost = np.abs(numbers.astype(np.float32) - numbers)
    origins = []
    for column, error in zip(numbers.T, lost.T, strict=True):
        known = column[np.isfinite(column)]
        spread = float(known.std()) if len(known) else 0.0
        # An overflow is no loss of digits; `number_target` refuses it.
        is_lost = spread > 0 and float(np.nanmax(error)) > _LOST * spread and np.isfinite(np.nanmax(error))
        origins.append(float(np.round(known.mean())) if is_lost else 0.0)
    return tuple(origins) if any(origins) else ()


def number_target(name: str, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return values as float32 ``[N, size]``, NaN where missing.

    Raises:
        DataError: If a value does not fit into float32.
    """
    with np.errstate(over="ignore"):
        result = numbers.astype(np.float32)
    if np.isinf(result).any():
        raise DataError(
            f"Target {name!r} has values beyond 3.4e38, the largest being {np.nanmax(np.abs(numbers)):g}. Use another unit or a "
            f"logarithm."
        )
    return result


def check_finite(name: str, cells: TargetCells) -> None:
    """Refuse a column of numbers some of which are infinite.

    Raises:
        DataError: With their number and the first row.
    """
    infinite = np.isinf(cells.numbers)
    if infinite.any() and not cells.words:
        raise DataError(
            f"Target {name!r} has {int(infinite.sum())} infinite values, the first in row {int(np.argmax(infinite)) + 1}. "
            "Numbers must be finite. Replace them by a number, or leave the cells empty."
        )


def numeric_columns(request: TargetRequest, frame: pd.DataFrame | Table) -> NDArray[np.float64]:
    """Return several columns as numbers, ``[N, size]``, NaN where missing.

    Raises:
        DataError: If a cell is no number or infinite, or all are missing.
    """
    name, columns = request.name, request.columns
    table = as_table(frame)
    parts = [table[column].numbers() for column in columns]
    words = [f"{column}: {short_list(map(repr, part.unread), 2)}" for column, part in zip(columns, parts) if part.unread]
    if words:
        raise DataError(
            f"Target {name!r} of several columns needs numbers in all of them; got words in {short_list(words)}. Use only "
            f"numeric columns."
        )
    numbers = np.stack([part.values for part in parts], axis=1)
    if np.isnan(numbers).all():
        raise DataError(
            f"Target {name!r}: all labels of its columns {short_list(columns)} are missing. Fill in labels, or leave it out."
        )
    if np.isinf(numbers).any():
        raise DataError(
            f"Target {name!r} has infinite values in {short_list(c for c, v in zip(columns, numbers.T) if np.isinf(v).any())}. "
            f"Numbers must be finite."
        )
    return numbers


def label_sets(levels: Sequence[str], counts: Sequence[int]) -> str | None:
    """Return the separator (in words) if cells hold several labels each, or None.

    Cells count as label sets if at least a tenth holds a semicolon or bar (or comma), and the labels repeat: there are fewer of
    them than different cells, and each has three rows on average.

    Args:
        levels: Different cells.
        counts: Rows of each.
    """
    for pattern, words in ((_HARD, "; or |"), (_SOFT, "a comma")):
        # Rows, not levels: one odd cell must not decide.
        several = sum(count for level, count in zip(levels, counts, strict=True) if pattern.search(level))
        if several < max(1, 0.1 * sum(counts)):
            continue
        pieces = [(piece, count) for level, count in zip(levels, counts, strict=True) for piece in pattern.split(level) if piece]
        labels = {piece for piece, _ in pieces}
        if 2 <= len(labels) <= _MAX_LABELS and len(labels) < len(levels) and sum(count for _, count in pieces) >= 3 * len(labels):
            return words
    return None


def _split(cell: Any, *, soft: bool) -> list[str] | None:
    """Return the labels of a cell; an empty list is "no label applies", None is "not known"."""
    if isinstance(cell, (list, tuple, np.ndarray)):
        return [text for text in map(as_text, cell) if text is not None]
    text = as_text(cell)
    if text is None:
        return None
    if text.startswith("[") and text.endswith("]"):
        try:
            return _split(json.loads(text), soft=soft)
        except ValueError:
            pass
    return [piece for piece in (_SOFT if soft else _HARD).split(text) if piece]


def _cells(values: Iterable[Any]) -> list[list[str] | None]:
    cells = list(values)
    texts = [cell for cell in cells if isinstance(cell, str)]
    # Commas part labels only where no cell has a semicolon or bar; with these, commas belong to the labels.
    soft = bool(texts) and not any(_HARD.search(text) for text in texts)
    return [_split(cell, soft=soft) for cell in cells]


def set_vocabulary(name: str, values: pd.Series) -> tuple[str, ...]:
    """Return all labels of the label sets in a column, sorted.

    Raises:
        DataError: If nothing is labelled, there is only one label, or there are more than 500.
    """
    cells = _cells(values.tolist())
    labels = sorted({label for cell in cells if cell is not None for label in cell})
    if not labels:
        raise DataError(f"Target {name!r}: all labels are missing. Fill in label lists such as 'a;b', or leave this target out.")
    # One label is enough if some row has an empty list.
    if len(labels) == 1 and all(cell is None or cell for cell in cells):
        raise DataError(
            f"Target {name!r} has only one class, the label {labels[0]!r}, and every labelled row has it. Leave it out, or add "
            f"rows without it."
        )
    if len(labels) > _MAX_LABELS:
        raise DataError(
            f"Target {name!r} has {len(labels)} different labels (for example {short_list(labels, 4)}); at most {_MAX_LABELS} "
            f"are allowed. Keep the frequent ones."
        )
    return tuple(labels)


def multilabel_target(name: str, values: pd.Series, labels: Sequence[str]) -> NDArray[np.float32]:
    """Return label sets as 0/1, float32 ``[N, len(labels)]``, NaN rows where the cell is missing.

    Raises:
        DataError: If a cell holds a label that is not among ``labels``.
    """
    index = {label: number for number, label in enumerate(labels)}
    cells = _cells(values.tolist())
    unknown = sorted({label for cell in cells if cell is not None for label in cell} - set(index))
    if unknown:
        raise DataError(
            f"Target {name!r} holds labels {short_list(map(repr, unknown))} that are not among those given: "
            f"{short_list(labels)}. Add them."
        )
    target = np.full((len(cells), len(labels)), np.nan, dtype=np.float32)
    for row, cell in enumerate(cells):
        if cell is not None:
            # A known cell says of every label whether it applies.
            target[row] = 0.0
            target[row, [index[label] for label in cell]] = 1.0
    return target
