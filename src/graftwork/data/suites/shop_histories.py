"""What simulated shops with behaviour histories share: which user a row is of, how users are held out, and the histories as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError

__all__ = ["check_ranges", "draw_history", "history_columns", "splits_by_user", "users_of_rows"]

Array = NDArray[Any]
Ints = NDArray[np.int64]


def check_ranges(suite: str, ranges: Mapping[str, tuple[float, float, float]]) -> None:
    """Check arguments of a generated suite.

    Args:
        suite: Name of its function.
        ranges: ``{argument: (value, lowest, highest)}``.

    Raises:
        ConfigError: If a value is out of its range; the first one is named.
    """
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise ConfigError(f"{suite}: {name} must be from {low} to {high}; got {value}.")


def users_of_rows(rows: int, test_rows: int, rows_per_user: int) -> Ints:
    """Return the user of each row, ``[rows + test_rows]``; test users are numbered on, so that no user is on both sides."""
    first_of_test = -(-rows // rows_per_user)
    return np.concatenate([np.arange(rows) // rows_per_user, first_of_test + np.arange(test_rows) // rows_per_user])


def splits_by_user(user: Ints, rows: int, rows_per_user: int, draw: np.random.Generator) -> dict[str, Ints]:
    """Return the splits: rows behind the first ``rows`` are the test, a tenth of the users of the others the validation."""
    order = draw.permutation(int(user[rows - 1]) + 1)
    validating = np.isin(user[:rows], order[: max(rows // rows_per_user // 10, 1)])
    return {"train": np.flatnonzero(~validating), "val": np.flatnonzero(validating), "test": np.arange(rows, len(user))}


def draw_history(preference: Array, length: int, share: float, draw: np.random.Generator) -> Ints:
    """Return item codes ``[users, length]`` from 1, newest first, no item twice, 0 behind the end.

    Args:
        preference: Logits of each user's choice, ``[users, items]``.
        length: Positions.
        share: Expected share of them that is filled, from 0 to 1.
        draw: Random numbers.
    """
    # Adding Gumbel noise and keeping the largest draws items without replacement, each by its softmax share.
    chosen = np.argsort(-(preference + draw.gumbel(size=preference.shape)), axis=1)[:, :length] + 1
    filled = draw.binomial(length, share, size=len(chosen))
    return np.where(np.arange(length) < filled[:, None], chosen, 0)


def history_columns(
    histories: Mapping[str, Ints], user: Ints, num_items: int, first: int
) -> tuple[dict[str, tuple[Array, int]], dict[str, Any]]:
    """Return the histories as categorical columns, one a position, and their layout (see :mod:`graftwork.nn.fields`).

    Args:
        histories: ``{behaviour: codes}`` from :func:`draw_history`, all of one length.
        user: User of each row, ``[N]``.
        num_items: Number of items.
        first: Number of categorical columns in front, the first of which is the item shown.
    """
    names: Sequence[str] = list(histories)
    length = next(iter(histories.values())).shape[1]
    columns = {
        f"{name}_{position + 1}": (codes[user, position], num_items)
        for name, codes in histories.items()
        for position in range(length)
    }
    layout = {
        # Items of all histories share the vocabulary of the item shown, number 0.
        "vocabularies": [0, *range(1, first), *[0] * len(columns)],
        "sequences": {name: [first + place * length, first + (place + 1) * length] for place, name in enumerate(names)},
        "query": 0,
    }
    return columns, layout
