"""Names of rows that have none of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

__all__ = ["RowNames"]


class RowNames(Sequence[str]):
    """``row 1``, ``row 2`` and so on, as people count rows, made when they are asked for.

    Args:
        number: How many, at least 0.

    Example:
        >>> names = RowNames(1_000_000)
        >>> names[0], names[-1], names[2:4]
        ('row 1', 'row 1000000', ['row 3', 'row 4'])
    """

    def __init__(self, number: int) -> None:
        self._rows = range(1, number + 1)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        found = self._rows[place]
        return f"row {found}" if isinstance(found, int) else [f"row {row}" for row in found]
