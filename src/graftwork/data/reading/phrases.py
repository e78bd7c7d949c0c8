"""Short texts in tables (names of products, titles, descriptions of jobs): columns of words, whose levels seldom repeat as a whole
but share their words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graftwork.data.reading.column import Column

__all__ = ["holds_phrases", "holds_sentences", "only_names_rows", "shared_words", "words_of"]

_WORD = re.compile(r"[^\W_]+")
_FEW_LEVELS = 20
"""Columns with no more levels say all by their levels."""
_LOOKED_AT = 2000
_LEAST_ROWS, _LEAST_LEVELS = 4, 2
_NEARLY_ALL, _ENOUGH_ROWS = 0.95, 20


def words_of(text: str) -> set[str]:
    """Return the different words of a text in lower case, those with a letter.

    Example:
        >>> sorted(words_of("Ford Torino (SW), 1970"))
        ['ford', 'sw', 'torino']
    """
    return {word for word in _WORD.findall(text.lower()) if not word.isdigit()}


def only_names_rows(column: Column) -> bool:
    """Return whether nearly all cells of a column of words differ: as a category it would only name rows."""
    codes, levels = column.named(column.naming)
    known = int((codes >= 0).sum())
    # Nearly all: a few repeated names do not make a column of names useful.
    return known >= _ENOUGH_ROWS and len(levels) > _NEARLY_ALL * known


def holds_phrases(column: Column) -> bool:
    """Return whether the words of a column's cells may tell more than its levels: more than 20 different ones, at least half of
    them of two words or more. Columns that the user called categories are none."""
    if column.is_category or column.kind not in ("categorical", "text") or len(column.levels) <= _FEW_LEVELS:
        return False
    looked = column.levels[:_LOOKED_AT]
    return 2 * sum(len(words_of(level)) > 1 for level in looked) >= len(looked)


def holds_sentences(column: Column) -> bool:
    """Return whether a column of text is written in words with spaces between them, at least half of its cells in three or more.
    Long names of rows (links, keys) are not."""
    looked = column.levels[:_LOOKED_AT] if column.kind == "text" else []
    return bool(looked) and 2 * sum(len(level.split()) > 2 for level in looked) >= len(looked)


def shared_words(levels: Sequence[str], counts: Sequence[int], *, most: int) -> tuple[str, ...]:
    """Return the words that are worth a column each, the most frequent first.

    A word is in at least four rows and two levels, and missing in at least four rows with a cell. Of words that are always together
    the first by name stands for all.

    Args:
        levels: The different cells.
        counts: Rows of each level; levels without any do not count.
        most: Most words.
    """
    places: dict[str, list[int]] = {}
    for place, level in enumerate(levels):
        if counts[place]:
            for word in words_of(level):
                places.setdefault(word, []).append(place)
    total = sum(counts)
    together: dict[tuple[int, ...], str] = {}
    rows: dict[str, int] = {}
    for word in sorted(places):
        own = places[word]
        count = sum(counts[place] for place in own)
        if (
            len(own) >= _LEAST_LEVELS
            and _LEAST_ROWS <= count <= total - _LEAST_ROWS
            and together.setdefault(tuple(own), word) == word
        ):
            rows[word] = count
    return tuple(sorted(rows, key=lambda word: (-rows[word], word))[:most])
