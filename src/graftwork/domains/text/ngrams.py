"""N-grams of token numbers: which of them are worth a column, and how often each stands in a text.

An n-gram is one number, its tokens as digits, so that whole batches are counted by sorting and searching. Padding (0) is in no
n-gram. An n-gram of sub-words that are no words of their own is a piece of a word, so that rare words are seen in parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST_TOKENS", "NgramVocabulary", "count_ngrams", "learn_ngrams"]

Array = NDArray[Any]
Codes = NDArray[np.int64]
MOST_TOKENS = 1_000_000
"""Token numbers that are looked at at a time: about 100 MB."""
_MOST_CANDIDATES = 4_000_000
"""N-grams of one length that are remembered while they are counted; the rarest are forgotten above it."""


@dataclass(frozen=True, slots=True, eq=False)
class NgramVocabulary:
    """The n-grams that have a column."""

    base: int
    """Digits of a code: token numbers from 1 to ``base - 2``; ``base - 1`` stands for all others, which no n-gram holds."""
    codes: Sequence[Codes]
    """Of each length from 1 on, sorted; their columns follow each other in this order."""
    texts_with: NDArray[np.int64]
    """In how many training texts each stands, ``[V]``."""

    def __len__(self) -> int:
        return sum(map(len, self.codes))

    def tokens(self) -> list[Codes]:
        """Return the tokens of the n-grams of each length ``n``, int64 ``[V_n, n]``."""
        return [
            np.stack([codes // self.base**place % self.base for place in range(length - 1, -1, -1)], axis=1).astype(np.int64)
            for length, codes in enumerate(self.codes, 1)
        ]


def _chunks(tokens: Array, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Yield places in ``rows`` and the tokens there, texts of like length together, so that little padding is looked at."""
    step = max(1, MOST_TOKENS // max(tokens.shape[1], 1))
    lengths = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), step):
        known = tokens[rows[start : start + step]] > 0
        lengths[start : start + step] = np.where(known.any(axis=1), known.shape[1] - np.argmax(known[:, ::-1], axis=1), 0)
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # The longest text of a chunk is its last, so the number of texts that fit is found from the ordered lengths.
        sizes = np.maximum(lengths[order[start:]], 1) * np.arange(1, len(order) - start + 1)
        stop = start + max(1, int(np.searchsorted(sizes, MOST_TOKENS, side="right")))
        places = order[start:stop]
        yield places, tokens[rows[places]][:, : max(1, lengths[places[-1]])]
        start = stop


def _codes(tokens: Array, base: int, longest: int) -> Iterator[Codes]:
    """Yield the codes of all places of each length, int64 ``[N, L - n + 1]``, -1 where padding is in it."""
    digits = np.clip(tokens.astype(np.int64), 0, base - 1)
    codes, known = digits, digits > 0
    for length in range(1, longest + 1):
        if length > 1:
            codes = codes[:, :-1] * base + digits[:, length - 1 :]
            known = known[:, :-1] & (digits[:, length - 1 :] > 0)
        yield np.where(known, codes, -1)


class _Counter:
    """Counts numbers that come in parts, in bounded memory."""

    def __init__(self) -> None:
        self._parts: list[tuple[Codes, Codes]] = []
        self._size = 0

    def add(self, codes: Codes) -> None:
        """Count each number once for every place that it stands at."""
        part = np.unique(codes, return_counts=True)
        self._parts.append(part)
        self._size += len(part[0])
        if self._size > 2 * _MOST_CANDIDATES:
            self._merge()

    def _merge(self) -> None:
        codes, places = np.unique(np.concatenate([part[0] for part in self._parts]), return_inverse=True)
        weights = np.concatenate([part[1] for part in self._parts])
        counts = np.bincount(places, weights=weights, minlength=len(codes)).astype(np.int64)
        least = 1
        while int((counts >= least).sum()) > _MOST_CANDIDATES:
            least += 1
        self._parts = [(codes[counts >= least], counts[counts >= least])]
        self._size = len(self._parts[0][0])

    def result(self) -> tuple[Codes, Codes]:
        """Return the numbers in order, and how often each came."""
        if not self._parts:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        self._merge()
        return self._parts[0]


def learn_ngrams(tokens: Array, rows: NDArray[np.int64], *, longest: int, most: int, least_texts: int = 2) -> NgramVocabulary:
    """Return the n-grams that stand in most texts.

    Args:
        tokens: Token numbers of all rows, ``[N, L]``, 0 for padding.
        rows: Training rows.
        longest: Tokens of the longest n-grams; fewer if the vocabulary is so large that codes would not fit into 64 bits.
        most: Number of n-grams that are kept; of equal ones the shorter, then those of smaller token numbers.
        least_texts: In fewer texts an n-gram is not kept, unless none stands in so many.
    """
    highest = max((int(part.max(initial=0)) for _, part in _chunks(tokens, rows)), default=0)
    base = highest + 2
    longest = max(1, min(longest, tokens.shape[1], int(62 / np.log2(base))))
    counter = [_Counter() for _ in range(longest)]
    for _, part in _chunks(tokens, rows):
        for index, codes in enumerate(_codes(part, base, longest)):
            ordered = np.sort(codes, axis=1)
            first = ordered >= 0
            first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
            counter[index].add(ordered[first])
    found = [item.result() for item in counter]
    lengths = np.concatenate([np.full(len(codes), length) for length, (codes, _) in enumerate(found, 1)])
    codes, counts = (np.concatenate([item[part] for item in found]) for part in (0, 1))
    if (counts >= least_texts).any():
        kept = counts >= least_texts
        lengths, codes, counts = lengths[kept], codes[kept], counts[kept]
    best = np.sort(np.lexsort((codes, lengths, -counts))[:most])  # sorted places keep lengths together and codes in order
    lengths, codes, counts = lengths[best], codes[best], counts[best]
    return NgramVocabulary(base, [codes[lengths == length] for length in range(1, longest + 1)], counts)


def count_ngrams(vocabulary: NgramVocabulary, tokens: Array, rows: NDArray[np.int64]) -> Any:
    """Return how often each n-gram stands in each text: a sparse ``csr_array`` of float64, ``[n, V]``."""
    from scipy.sparse import coo_array, csr_array, vstack

    width = len(vocabulary)
    starts = np.cumsum([0, *map(len, vocabulary.codes)])
    parts, order = [], [np.zeros(0, dtype=np.int64)]
    for texts, part in _chunks(tokens, rows):
        places, columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for start, known, codes in zip(
            starts, vocabulary.codes, _codes(part, vocabulary.base, len(vocabulary.codes)), strict=False
        ):
            if len(known):
                index = np.minimum(np.searchsorted(known, codes), len(known) - 1)
                row, place = np.nonzero(known[index] == codes)
                places.append(row)
                columns.append(index[row, place] + start)
        row, column = np.concatenate(places), np.concatenate(columns)
        parts.append(coo_array((np.ones(len(row)), (row, column)), shape=(len(texts), width)).tocsr())
        order.append(texts)
    if not parts:
        return csr_array((0, width), dtype=np.float64)
    return csr_array(vstack(parts, format="csr"))[np.argsort(np.concatenate(order))]
