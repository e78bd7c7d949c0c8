"""The k-th largest magnitude: exact, in bounded memory, and it ends whatever the values are."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import DataError
from graftwork.methods.merging.threshold import KthMagnitude


def search(values: np.ndarray, rank: int, *, largest_sample: int = 64, limit: int = 12) -> tuple[KthMagnitude, int]:
    found, passes = KthMagnitude(largest_sample=largest_sample), 0
    while not found.is_done:
        for part in np.array_split(values, 3):
            found.observe(part, np.zeros_like(part))
        found.finish_pass(rank_from_top=rank)
        passes += 1
        assert passes < limit
    return found, passes


def expected(values: np.ndarray, rank: int) -> float:
    return float(np.sort(np.abs(values))[values.size - rank])


@given(
    st.integers(0, 10_000),
    st.integers(1, 4000),
    st.floats(0.0, 1.0),
    st.sampled_from(["zeros", "few", "mixed", "infinite", "sorted"]),
)
def test_it_is_exact_for_zeros_equal_values_and_infinities(seed: int, size: int, share: float, kind: str) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=size).astype(np.float32)
    if kind == "zeros":
        values[random.random(size) < 0.9] = 0.0
    elif kind == "few":
        values = np.round(values).astype(np.float32)
    elif kind == "mixed":
        values[random.random(size) < 0.5] = 0.25
    elif kind == "infinite":
        values[random.random(size) < 0.3] = -np.inf
    else:
        values = np.sort(values)
    rank = max(1, int(share * size))
    assert search(values, rank)[0].threshold == expected(values, rank)


def test_float64_keeps_its_digits() -> None:
    values = 1.0 + np.random.default_rng(0).permutation(5000) * 1e-12
    found, _ = search(values, 1234)
    assert found.threshold == expected(values, 1234)


def test_zeros_are_counted_and_not_kept() -> None:
    values = np.zeros(4_000_000, np.float32)
    values[::10] = np.random.default_rng(0).normal(size=400_000)
    found = KthMagnitude()
    tracemalloc.start()
    passes = 0
    while not found.is_done:
        for part in np.array_split(values, 8):
            found.observe(part, np.zeros_like(part))
        found.finish_pass(rank_from_top=800_001)
        passes += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.threshold, passes) == (0.0, 2)
    assert peak < 0.7 * values.nbytes  # one part's zeros and the sample; 2 passes used to keep 14 MB of zeros


def test_a_large_first_tensor_is_sampled_while_it_is_read() -> None:
    values = np.random.default_rng(0).normal(size=4_000_000).astype(np.float32)
    base = np.zeros_like(values)
    found = KthMagnitude(largest_sample=1 << 16)
    tracemalloc.start()
    found.observe(values, base)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.3 * values.nbytes


def test_a_misleading_sample_costs_passes_but_no_memory() -> None:
    """Every value that the first pass samples is small: all the others lie above the bracket, and do not fit into the second
    sample."""
    values = np.tile(np.array([0.001] + [5.0] * 63, np.float32), 2048) * (
        1 + 1e-4 * np.random.default_rng(0).random(2048 * 64, np.float32)
    )
    found, passes = search(values, 1000, largest_sample=128)
    assert found.threshold == expected(values, 1000)
    assert passes <= 6


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_values_that_are_mostly_nan_are_an_error_and_not_an_endless_search(share: float) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=5000).astype(np.float32)
    values[random.random(5000) < share] = np.nan
    with pytest.raises(DataError, match="are NaN"):
        search(values, 1000)


def test_a_few_nan_count_as_the_largest() -> None:
    values = np.arange(5000, dtype=np.float32)
    values[:10] = np.nan
    assert search(values, 100)[0].threshold == 4999 - 89
