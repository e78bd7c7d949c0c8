from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from graftwork.domains.text import ngrams
from graftwork.domains.text.ngrams import count_ngrams, learn_ngrams

TOKENS = np.array([[2, 3, 2, 3, 0], [3, 4, 0, 0, 0], [0, 0, 0, 0, 0], [2, 3, 4, 5, 6]])
ROWS = np.arange(4)


def plain_counts(row: list[int], longest: int) -> Counter[tuple[int, ...]]:
    """N-grams of one text, written out; none goes over padding."""
    found: Counter[tuple[int, ...]] = Counter()
    for length in range(1, longest + 1):
        for start in range(len(row) - length + 1):
            piece = tuple(row[start : start + length])
            if 0 not in piece:
                found[piece] += 1
    return found


def test_ngrams_of_most_texts_are_kept() -> None:
    vocabulary = learn_ngrams(TOKENS, ROWS, longest=2, most=4)
    assert [item.tolist() for item in vocabulary.tokens()] == [[[2], [3], [4]], [[2, 3]]]
    assert vocabulary.texts_with.tolist() == [2, 3, 2, 2]
    assert count_ngrams(vocabulary, TOKENS, ROWS).toarray().tolist() == [
        [2, 2, 0, 2],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
        [1, 1, 1, 1],
    ]


def test_unknown_tokens_are_in_no_ngram() -> None:
    vocabulary = learn_ngrams(TOKENS, ROWS, longest=2, most=4)
    found = count_ngrams(vocabulary, np.array([[2, 900, 3], [901, 2, 3]]), np.arange(2)).toarray()
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 0, 1]]


@settings(max_examples=40, deadline=None)
@given(
    arrays.arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.integers(0, 5)),
    st.integers(1, 4),
    st.integers(1, 40),
)
def test_counts_are_those_of_a_loop(tokens: np.ndarray, longest: int, room: int) -> None:
    most, before = ngrams.MOST_TOKENS, ngrams.MOST_TOKENS
    rows = np.arange(len(tokens))
    try:
        ngrams.MOST_TOKENS = room  # texts come in parts of a few
        vocabulary = learn_ngrams(tokens, rows, longest=longest, most=most, least_texts=1)
        found = count_ngrams(vocabulary, tokens, rows[::-1]).toarray()
    finally:
        ngrams.MOST_TOKENS = before
    names = [tuple(item) for part in vocabulary.tokens() for item in part.tolist()]
    for row, counts in zip(tokens[::-1].tolist(), found, strict=True):
        assert {name: int(count) for name, count in zip(names, counts, strict=True) if count} == plain_counts(row, longest)


def test_the_rarest_are_forgotten_while_counting_and_memory_is_bounded() -> None:
    draw = np.random.default_rng(0)
    tokens = np.where(draw.random((400, 6)) < 0.5, 1, draw.integers(2, 5000, size=(400, 6)))
    before = ngrams._MOST_CANDIDATES
    try:
        ngrams._MOST_CANDIDATES = 50
        vocabulary = learn_ngrams(tokens, np.arange(400), longest=2, most=3)
    finally:
        ngrams._MOST_CANDIDATES = before
    assert vocabulary.tokens()[0][0].tolist() == [1]
    assert vocabulary.texts_with.max() > 350
