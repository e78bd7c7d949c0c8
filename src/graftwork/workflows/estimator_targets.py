"""What the estimator takes as ``y``: columns in their own types, and labels compared by what they are, not by how they are
written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import column_or_1d

from graftwork.data.reading.cells import as_text, plain_cells
from graftwork.data.reading.column import level_name

__all__ = ["has_fractions", "label_keys", "target_columns"]

Array = NDArray[Any]


def target_columns(y: Any, rows: int | None, *, fitting: bool = True) -> tuple[list[Array], bool]:
    """Return the columns of ``y`` as arrays ``[N]``, each in the narrowest type of its own, and whether ``y`` has one column
    only.

    Args:
        y: Array, list or pandas object, ``[N]`` or ``[N, T]``; the columns of a DataFrame may be of different types.
        rows: ``N``; None takes any.
        fitting: Whether labels are learned, and must be of a kind that scikit-learn knows.

    Raises:
        ValueError: If the shape does not fit, or values are missing, infinite or complex.
    """
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    # Column by column: `to_numpy` of the whole frame would bring different types to `object`.
    if hasattr(y, "columns") and len(y.columns) > 1:
        columns, is_single = [_narrowed(_values(y.iloc[:, index])) for index in range(len(y.columns))], False
    else:
        y = _values(y) if hasattr(y, "to_numpy") and getattr(y, "ndim", 1) == 1 else np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if y.ndim not in (1, 2):
            raise ValueError(f"`y` must have shape [N] or [N, T]; got {list(y.shape)}.")
        is_single = y.ndim == 1
        columns = [_narrowed(y)] if is_single else [_narrowed(y[:, index]) for index in range(y.shape[1])]
    if rows is not None and len(columns[0]) != rows:
        raise ValueError(f"Found input variables with inconsistent numbers of samples: {[rows, len(columns[0])]}")
    for column in columns:
        if (column.dtype.kind == "f" and not np.isfinite(column).all()) or (
            column.dtype == object and any(as_text(value) is None for value in column.tolist())
        ):
            raise ValueError(
                "Input y contains NaN or infinity. Drop these rows, or use graftwork.fit, which masks missing labels."
            )
        if column.dtype.kind == "c":
            raise ValueError("Complex data not supported: give the real and imaginary parts as two columns.")
    if fitting and is_single:
        kind = type_of_target(columns[0])
        if kind == "unknown":
            raise ValueError(f"Unknown label type: {kind}. `y` must hold numbers, strings or booleans.")
    return columns, is_single


def _values(series: Any) -> Array:
    """Return a pandas column as an array; nullable and Arrow types become NumPy's where nothing is missing."""
    return np.asarray(plain_cells(series).to_numpy()) if hasattr(series, "dtype") else np.asarray(series)


def _narrowed(column: Array) -> Array:
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


def has_fractions(column: Array) -> bool:
    """Return whether a column holds numbers that are not whole."""
    return column.dtype.kind == "f" and bool((column != np.floor(column)).any())


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
