from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graftwork.math.pair_counts import PairCounter


def by_loops(
    level: np.ndarray, score: np.ndarray, lower: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> tuple[float, float]:
    alike = pairs = 0.0
    for i in range(len(level)):
        for j in range(len(level)):
            if lower[i] and group[i] == group[j] and level[i] < level[j]:
                weight = weights[i] * weights[j]
                pairs += weight
                alike += weight * (1.0 if score[i] < score[j] else 0.5 if score[i] == score[j] else 0.0)
    return alike, pairs


@given(st.integers(0, 12), st.integers(1, 9), st.integers(1, 5), st.integers(1, 3), st.integers(0, 10_000))
def test_it_counts_what_two_loops_count(rows: int, levels: int, scores: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    level, score, group = (rng.integers(0, size, rows) for size in (levels, scores, groups))
    lower, weights = rng.random(rows) < 0.7, rng.integers(0, 4, (3, rows)).astype(float)
    counter = PairCounter(level * 1.5, score - 2.0, counts=lower, group=group)
    alike, pairs = counter(weights)
    expected = [by_loops(level, score, lower, group, row) for row in weights]
    np.testing.assert_allclose(np.stack([alike, pairs], axis=1), np.array(expected).reshape(3, 2))


@given(st.permutations(range(9)), st.integers(0, 1000))
def test_the_order_of_rows_does_not_matter(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    level, score, weights = rng.integers(0, 5, 9), rng.integers(0, 4, 9), rng.random((1, 9))
    first = PairCounter(level, score)(weights)
    second = PairCounter(level[order], score[order])(weights[:, order])
    np.testing.assert_allclose(first, second)
