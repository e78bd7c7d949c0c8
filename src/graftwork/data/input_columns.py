"""The columns that a user knows, and where they lie in the arrays of a suite: what is exchanged to see what a model makes of them.

A number with its flag for missing cells, all parts of a date, all entries of a vector or of a history are one column each; a whole
text, picture or series is one, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.input_kinds import input_kind
from graftwork.core.input_spec import InputSpec, InputSpecs
from graftwork.data.encoders import encoder_from_state

__all__ = ["InputColumn", "exchange", "input_columns"]

Array = NDArray[Any]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One column of the raw rows."""

    name: str
    places: Mapping[str, tuple[int, ...] | None]
    """``{array of the suite: positions in its last dimension}``; None for the whole array."""


def input_columns(specs: InputSpecs, arrays: Mapping[str, Array]) -> tuple[InputColumn, ...]:
    """Return the columns behind the inputs of a suite or a model, in the order of the inputs.

    Args:
        specs: The inputs.
        arrays: Their arrays, as they are called in the suite.

    Returns:
        Columns with names of their own; without an encoder, columns of a table are called after array and position.
    """
    found: list[InputColumn] = []
    taken: set[str] = set()
    for name, spec in specs.items():
        for column, places in _columns_of(name, spec, arrays):
            there = {array: positions for array, positions in places.items() if array in arrays}
            if not there:
                continue
            unique, number = column, 1
            while unique in taken:
                number += 1
                unique = f"{column} ({number})"
            taken.add(unique)
            found.append(InputColumn(unique, there))
    return tuple(found)


def _columns_of(
    name: str, spec: InputSpec, arrays: Mapping[str, Array]
) -> list[tuple[str, Mapping[str, tuple[int, ...] | None]]]:
    own = list(spec.arrays) or list(arrays)
    encoder = encoder_from_state(spec.encoder) if spec.encoder else None
    places = encoder.places() if encoder is not None else {}
    if not places and encoder is None and input_kind(spec.kind).positions:
        places = _unnamed(spec, own, arrays)
    if places:
        return [
            (column, {spec.arrays.get(array, array): tuple(positions) for array, positions in where.items()})
            for column, where in places.items()
        ]
    read = [str(column) for column in getattr(encoder, "columns", ())] or list(getattr(encoder, "picture_columns", ()))
    return [(" and ".join(read) or name, {spec.arrays.get(array, array): None for array in own})]


def _unnamed(spec: InputSpec, own: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, dict[str, list[int]]]:
    """Return the columns of arrays that no encoder made; the positions of a behaviour sequence are one."""
    found: dict[str, dict[str, list[int]]] = {}
    sequences = {int(start): (str(name), int(end)) for name, (start, end) in (spec.sizes.get("sequences") or {}).items()}
    for array in own:
        width = np.shape(arrays[spec.arrays.get(array, array)])[-1]
        position = 0
        while position < width:
            name, end = f"{array}[{position}]", position + 1
            if array == "categorical" and position in sequences:
                name, end = sequences[position]
            found.setdefault(name, {})[array] = list(range(position, end))
            position = end
    return found


def exchange(target: dict[str, Array], column: InputColumn, rows: slice, source: Mapping[str, Array], others: Rows) -> None:
    """Write a column of some rows over that of others.

    Args:
        target: Arrays that are changed, ``{array: [N, ...]}``.
        column: The column.
        rows: Rows of ``target`` that are changed.
        source: Arrays that it is taken from.
        others: Rows of ``source``, one for each row that is changed.
    """
    for name, positions in column.places.items():
        if positions is None:
            target[name][rows] = source[name][others]
        else:
            places = np.asarray(positions, dtype=np.int64)
            target[name][rows][..., places] = source[name][others][..., places]
