"""Names that users type: the nearest match for a misspelt one, and short lists for messages. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

from graftwork.core.errors import DataError
from graftwork.core.nearest import did_you_mean, nearest_name

__all__ = ["check_names", "did_you_mean", "nearest_name", "short_list"]

_LONGEST = 200
"""Characters of one item; cells may hold whole documents."""


def short_list(items: Iterable[object], limit: int = 12) -> str:
    """Return items joined by commas, cut after ``limit`` with the number left out; of an item at most 200 characters are shown.

    Example:
        >>> short_list(range(5), limit=3)
        '0, 1, 2 and 2 more'
    """
    texts = [text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..." for text in map(str, items)]
    if len(texts) <= limit:
        return ", ".join(texts)
    return f"{', '.join(texts[:limit])} and {len(texts) - limit} more"


def check_names(names: Iterable[str], columns: Iterable[str], *, what: str, where: str) -> None:
    """Check that every name is a column.

    Args:
        names: Names the user asked for.
        columns: Names that exist.
        what: What the names are for, for example ``"--targets"``.
        where: The table, for the message.

    Raises:
        DataError: Naming every unknown column with its nearest match, and the columns that exist.
    """
    available = list(columns)
    unknown = [name for name in names if name not in set(available)]
    if not unknown:
        return
    hints = "".join(f" {name!r} is not a column of {where}.{did_you_mean(name, available)}" for name in unknown)
    raise DataError(f"{what}:{hints} The columns are: {short_list(available, 40)}.")
