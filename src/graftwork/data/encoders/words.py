"""Columns of short texts as flags: which of the frequent words are in a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.data.reading.column import Column, as_column
from graftwork.data.reading.phrases import shared_words, words_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["WordsColumn", "most_words"]

_MOST_WORDS = 100
_MOST_CELLS = 20_000_000
"""Numbers that the flags of one column may take, 80 MB: tables of millions of rows get fewer words."""


def most_words(num_rows: int) -> int:
    """Return how many words of a column get a flag in a table of ``num_rows`` rows."""
    return min(_MOST_WORDS, _MOST_CELLS // max(num_rows, 1))


@dataclass(frozen=True, slots=True)
class WordsColumn:
    """A flag for each frequent word of the training rows: 1 where the cell has it, else 0, as in missing cells."""

    name: str
    words: tuple[str, ...]
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Number the words once."""
        object.__setattr__(self, "_numbers", {word: number for number, word in enumerate(self.words)})

    @classmethod
    def fit(cls, name: str, values: pd.Series | Column, *, most: int = _MOST_WORDS) -> Self:
        """Choose words by the training rows (see :func:`graftwork.data.reading.phrases.shared_words`).

        Args:
            name: The column.
            values: Its cells in the training rows.
            most: Most words.
        """
        column = as_column(values, name)
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
        return cls(name, shared_words(column.levels, counts.tolist(), most=most))

    def encode(self, values: pd.Series | Column) -> NDArray[np.float32]:
        """Return the flags, ``[W, N]``: a row of them for each word."""
        column = as_column(values, self.name)
        # Level -1, a missing cell, picks the last entry, which has no word.
        flags = np.zeros((len(self.words), len(column.levels) + 1), dtype=np.float32)
        for place, level in enumerate(column.levels):
            for word in words_of(level) & self._numbers.keys():
                flags[self._numbers[word], place] = 1.0
        return flags[:, column.codes]

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"type": "words", "name": self.name, "words": list(self.words)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        return cls(str(state["name"]), tuple(map(str, state["words"])))
