"""What the estimator takes as ``y``: columns in their own types with gaps, and labels compared by what they are, not by how they
are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from graftwork.core.optional import require
from graftwork.data.reading.cells import NESTED_TYPES, as_text, plain_cells
from graftwork.data.reading.column import Column, level_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TargetColumn", "label_keys", "narrowed", "target_columns"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of ``y``."""

    name: str
    """The column's own name if ``y`` is a pandas object whose names are texts and differ, else ``y0``, ``y1`` ..."""
    series: pd.Series
    """Its cells as they came, ``[N]``."""
    cells: Array
    """Its cells as an array ``[N]`` in the narrowest type of its own."""
    known: NDArray[np.bool_]
    """Which rows have a label, ``[N]``."""

    def numbers(self) -> NDArray[np.float64]:
        """Return the cells as numbers ``[N]``, NaN where a label is missing or no number."""
        if narrowed(self.cells[self.known]).dtype.kind not in "biuf":
            return Column(self.name, self.series).numbers().values
        found = np.full(len(self.cells), np.nan)
        found[self.known] = self.cells[self.known].astype(np.float64)
        return found

    @property
    def has_fractions(self) -> bool:
        """Whether the labels are numbers that are not all whole."""
        labels = narrowed(self.cells[self.known])
        return labels.dtype.kind == "f" and bool((labels != np.floor(labels)).any())


def target_columns(y: Any, rows: int | None, *, fitting: bool = True) -> tuple[list[TargetColumn], bool]:
    """Return the columns of ``y``, and whether it has one column only.

    Args:
        y: Array, list or pandas object, ``[N]`` or ``[N, T]``; the columns of a DataFrame may be of different types. NaN, None,
            ``pandas.NA`` and empty texts are missing labels.
        rows: ``N``; None takes any.
        fitting: Whether labels are learned, and must be of a kind that scikit-learn knows.

    Raises:
        ValueError: If the shape does not fit, a column has no label at all, or values are infinite, complex or lists.
    """
    pandas = require("pandas", extra="data", purpose="The estimator")
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    # Column by column: `to_numpy` of the whole frame would bring different types to `object`.
    if hasattr(y, "columns") and len(y.columns) > 1:
        parts, is_single = [y.iloc[:, index] for index in range(len(y.columns))], False
        names = [str(name) if isinstance(name, str) else "" for name in y.columns]
    else:
        names = [y.name] if isinstance(getattr(y, "name", None), str) else [""]
        y = y if hasattr(y, "to_numpy") and getattr(y, "ndim", 1) == 1 else np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.ndim not in (1, 2):
            raise ValueError(f"`y` must have shape [N] or [N, T]; got {list(y.shape)}.")
        is_single = y.ndim == 1
        parts = [y] if is_single else [y[:, index] for index in range(y.shape[1])]
    if rows is not None and len(parts[0]) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[rows, len(parts[0])]}")
    if "" in names or len(set(names)) < len(parts):
        names = [f"y{index}" for index in range(len(parts))]
    columns = [_column(name, part, pandas) for name, part in zip(names, parts, strict=True)]
    if fitting:
        for column in columns:
            if not column.known.any():
                raise ValueError(f"Input y contains NaN only, in column {column.name!r}. Give it labels, or leave it out.")
        if is_single and _is_unknown(narrowed(columns[0].cells[columns[0].known])):
            raise ValueError("Unknown label type: unknown. `y` must hold numbers, strings or booleans.")
    return columns, is_single


def _is_unknown(labels: Array) -> bool:
    try:
        return bool(type_of_target(labels) == "unknown")
    except TypeError:  # numbers beside texts, which are refused with a better message where kinds are decided
        return False


def _column(name: str, part: Any, pandas: Any) -> TargetColumn:
    cells = narrowed(_values(part))
    if cells.dtype.kind == "c":
        raise ValueError("Complex data not supported: give the real and imaginary parts as two columns.")
    series = (
        plain_cells(part.reset_index(drop=True)) if hasattr(part, "dtype") and hasattr(part, "iloc") else pandas.Series(cells)
    )
    if cells.dtype.kind == "O":
        values = cells.tolist()
        if any(isinstance(value, NESTED_TYPES) for value in values):
            raise ValueError(f"Unknown label type: column {name!r} of `y` holds lists. Give one label a cell.")
        known = np.fromiter((as_text(value) is not None for value in values), dtype=np.bool_, count=len(values))
    else:
        known = np.ones(len(cells), dtype=np.bool_) if cells.dtype.kind not in "fmM" else ~np.asarray(pandas.isna(cells))
    if cells.dtype.kind == "f" and np.isinf(cells).any():
        raise ValueError(f"Input y contains infinity, in column {name!r}. Numbers must be finite; NaN is a missing label.")
    return TargetColumn(name, series, cells, known)


def _values(part: Any) -> Array:
    """Return a pandas column as an array; nullable and Arrow types become NumPy's where nothing is missing."""
    return np.asarray(plain_cells(part).to_numpy()) if hasattr(part, "iloc") else np.asarray(part)


def narrowed(column: Array) -> Array:
    """Return a column of objects that are all numbers, or all true and false, in that type; others as they are."""
    if column.dtype != object:
        return column
    types = {type(value) for value in column.tolist()}
    if types and all(issubclass(one, (bool, np.bool_)) for one in types):
        return column.astype(np.bool_)
    # `bool` is a subclass of `int`, but NumPy's is not one of its integers.
    if types and all(issubclass(one, (bool, int, float, np.bool_, np.integer, np.floating)) for one in types):
        is_whole = all(issubclass(one, (bool, int, np.bool_, np.integer)) for one in types)
        return column.astype(np.int64 if is_whole else np.float64)
    return column


def label_keys(column: Array) -> list[str]:
    """Return labels in the form in which they are compared: numbers by value, true and false as 1 and 0.

    Example:
        >>> label_keys(np.array([1, 1.0, True, "1", "yes"], dtype=object))
        ['1', '1', '1', '1', 'yes']
    """
    # `1`, `1.0` and `True` are one label, whichever library wrote them.
    flags = {"True": "1", "False": "0"}
    keys = [level_name(as_text(value) or "", "numbers") for value in column.tolist()]
    return [flags.get(key, key) for key in keys]
