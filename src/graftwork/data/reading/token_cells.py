"""From cells of tokens to the target of a sequence task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.names import short_list
from graftwork.data.reading.cells import as_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["END", "token_target"]

END = "<end>"
"""Name of class 0, which ends a sequence."""
_MAX_OUTPUTS = 50_000
"""Tokens times places: a head is so wide."""


def _tokens(cell: Any) -> list[str] | None:
    """Return the tokens of a cell, an empty list for an empty list, None where it is missing."""
    if isinstance(cell, (list, tuple, np.ndarray)):
        return [text for text in map(as_text, cell) if text is not None]
    text = as_text(cell)
    return None if text is None else text.split()


def token_target(name: str, values: pd.Series, given: tuple[str, ...] = ()) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return token classes, int64 ``[N, L]``, -1 for padding and missing rows, and the tokens in class order, :data:`END` first.

    Args:
        name: The target, for messages.
        values: Lists of tokens, or texts with blanks between them.
        given: Tokens in the user's order; empty takes all that occur, sorted.

    Raises:
        DataError: If no row has a token, a token is not among those given or is called like the end, or there are too many.
    """
    rows = [_tokens(cell) for cell in values.tolist()]
    found = sorted({token for row in rows if row is not None for token in row})
    if not found:
        raise DataError(
            f"Target {name!r}: no row has a token. Fill in tokens with blanks between them, or lists, or leave this target out."
        )
    unknown = sorted(set(found) - set(given)) if given else []
    if unknown or END in found:
        what = (
            f"holds {short_list(map(repr, unknown))}, not among the tokens given"
            if unknown
            else f"holds {END!r}, which ends every sequence"
        )
        raise DataError(f"Target {name!r} {what}. Correct the cells{', or add them to the list' if unknown else ''}.")
    names = (END, *(given or found))
    # One place more, for the end token of the longest row.
    length = max(len(row) for row in rows if row is not None) + 1
    if len(names) * length > _MAX_OUTPUTS:
        raise DataError(
            f"Target {name!r} has {len(found)} different tokens (for example "
            f"{short_list(map(repr, found), 4)}) and up to {length - 1} in a row; "
            f"their product may be at most {_MAX_OUTPUTS}. Shorten the sequences, or replace rare tokens."
        )
    index = {token: number for number, token in enumerate(names)}
    target = np.full((len(rows), length), -1, dtype=np.int64)
    for place, row in enumerate(rows):
        if row is not None:
            # The end token is part of the label, so that an empty list can be learned.
            target[place, : len(row) + 1] = [*(index[token] for token in row), 0]
    return target, names
