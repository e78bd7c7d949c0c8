"""Mergers beside TIES: values by hand, and what each promises. Numbers of mergekit are in the tests of its YAML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.averaging import AveragingMerger
from graftwork.methods.merging.breadcrumbs import BreadcrumbsMerger, MagnitudeMerger
from graftwork.methods.merging.dare import DareMerger
from graftwork.methods.merging.della import DellaMerger, keep_probabilities
from graftwork.methods.merging.driver import merge_arrays
from graftwork.methods.merging.model_stock import ModelStockMerger
from graftwork.methods.merging.passthrough import PassthroughMerger
from graftwork.methods.merging.sparse_changes import kept_largest
from graftwork.methods.merging.spherical import KarcherMerger, NuSlerpMerger, SlerpMerger, slerp
from graftwork.workflows.merge_methods import build_merger


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def one(merger: Merger, base: Any, *experts: Any) -> np.ndarray:
    arrays = [np.asarray(item, np.float32) for item in (base, *experts)]
    return np.asarray(merger.merge_tensor("w", arrays[0], arrays[1:]))


def test_slerp_walks_on_the_arc() -> None:
    half = one(SlerpMerger(t=0.5), [1.0, 0.0], [0.0, 1.0])
    np.testing.assert_allclose(half, [np.sqrt(0.5)] * 2, rtol=1e-6)
    np.testing.assert_allclose(one(SlerpMerger(t=0.25), [0, 0], [2, 0], [4, 0]), [2.5, 0])  # a line: the mean of lengths
    third = one(SlerpMerger(t=1 / 3), [1.0, 0.0], [0.0, 1.0])
    np.testing.assert_allclose(third, [np.cos(np.pi / 6), np.sin(np.pi / 6)], rtol=1e-6)
    np.testing.assert_allclose(one(SlerpMerger(), [1.0, 0.0], [-1.0, 0.0]), [0, 0])  # opposite: the line


@settings(deadline=None, max_examples=25)
@given(t=st.floats(0, 1), seed=st.integers(0, 5))
def test_slerp_of_unit_vectors_stays_on_the_sphere(t: float, seed: int) -> None:
    first, second = (side / np.linalg.norm(side) for side in (drawn(seed, 8), drawn(seed + 100, 8)))
    assert np.linalg.norm(slerp(t, first, second)) == pytest.approx(1.0, abs=1e-5)
    rows = slerp(t, np.stack([first, second]), np.stack([second, first]), axis=-1)
    np.testing.assert_allclose(rows[0], slerp(t, first, second), atol=1e-6)


def test_nuslerp_turns_changes_where_there_is_a_base() -> None:
    base, first, second = drawn(0, 3, 4), drawn(1, 3, 4), drawn(2, 3, 4)
    merger = NuSlerpMerger(weights=(1.0, 3.0))
    np.testing.assert_allclose(one(merger, base, first, second), base + slerp(0.75, first - base, second - base), atol=1e-6)
    merger.has_base = False
    np.testing.assert_allclose(one(merger, base, first, second), slerp(0.75, first, second), atol=1e-6)


def test_the_karcher_mean_has_no_pull_left() -> None:
    models = [drawn(seed, 5, 4) for seed in range(3)]
    mean = one(KarcherMerger(max_iter=100, tol=1e-9), models[0], *models).reshape(-1).astype(np.float64)
    norms = [np.linalg.norm(model) for model in models]
    assert np.linalg.norm(mean) == pytest.approx(np.mean(norms), rel=1e-5)
    unit, pull = mean / np.linalg.norm(mean), np.zeros(20)
    for model, norm in zip(models, norms, strict=True):
        side = model.reshape(-1) / norm
        angle = np.arccos(unit @ side)
        pull += angle / np.sin(angle) * (side - (unit @ side) * unit)
    assert np.linalg.norm(pull) < 1e-5
    np.testing.assert_allclose(one(KarcherMerger(), [0, 0], [0, 0], [0, 0]), np.zeros(2))
    np.testing.assert_allclose(one(KarcherMerger(), models[0], models[0], models[0]), models[0], rtol=1e-5)


def test_model_stock_by_hand() -> None:
    # changes (1, 0) and (1, 1): cosine 1 / sqrt(2), t = 2c / (1 + c)
    cosine = np.sqrt(0.5)
    t = 2 * cosine / (1 + cosine)
    np.testing.assert_allclose(one(ModelStockMerger(), [5.0, 5.0], [6.0, 5.0], [6.0, 6.0]), [5 + t, 5 + t / 2], rtol=1e-6)
    np.testing.assert_allclose(one(ModelStockMerger(), [1.0, 1.0], [2.0, 1.0], [0.0, 1.0]), [1.0, 1.0])  # opposite: the base
    rows = one(ModelStockMerger(filter_wise=True), np.zeros((2, 2)), [[1, 0], [1, 0]], [[1, 1], [0, 1]])
    np.testing.assert_allclose(rows, [[t, t / 2], [0, 0]], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 30), count=st.integers(0, 30), skipped=st.integers(0, 30), seed=st.integers(0, 9))
def test_kept_entries_are_the_largest_after_those_that_are_skipped(size: int, count: int, skipped: int, seed: int) -> None:
    change = drawn(seed, size)
    mask = kept_largest(change, count, skipped)
    order = np.argsort(-np.abs(change))
    expected = np.zeros(size)
    expected[order[skipped : skipped + count]] = 1
    np.testing.assert_array_equal(mask, expected)


def test_breadcrumbs_drop_both_ends() -> None:
    change = np.arange(1.0, 11.0)
    merged = one(BreadcrumbsMerger(density=0.5, gamma=0.2), np.zeros(10), change)
    np.testing.assert_array_equal(merged, [0, 0, 0, 4, 5, 6, 7, 8, 0, 0])
    # Where both shares do not fit, the density counts.
    np.testing.assert_array_equal(one(BreadcrumbsMerger(density=0.9, gamma=0.5), np.zeros(10), change), [*change[:9], 0])


def test_elections_add_what_agrees_and_average_it() -> None:
    merger = MagnitudeMerger(density=1.0, elect="sum", normalize=True, weights=(1.0, 2.0, 1.0))
    # weighted sums: 1 + 4 - 1 > 0, 1 - 4 - 1 < 0, 1 - 2 + 1 = 0 (positive)
    merged = one(merger, np.zeros(3), [1, 1, 1], [2, -2, -1], [-1, -1, 1])
    np.testing.assert_allclose(merged, [5 / 3, -5 / 3, 1.0])


def test_random_dropping_keeps_the_expected_change_and_repeats() -> None:
    base, expert = np.zeros((200, 50)), np.ones((200, 50))
    for merger in (DareMerger(density=0.3, seed=1), DellaMerger(density=0.3, epsilon=0.1, normalize=False, elect="none", seed=1)):
        merged = one(merger, base, expert)
        assert merged.mean() == pytest.approx(1.0, abs=0.05)
        assert 0.27 < np.count_nonzero(merged) / merged.size < 0.33
        np.testing.assert_array_equal(merged, one(merger, base, expert))
        # Two models are dropped from independently.
        both = one(merger, base, expert, expert)
        assert np.count_nonzero(both) > 1.3 * np.count_nonzero(merged)
    assert not np.array_equal(one(DareMerger(seed=1), base, expert), one(DareMerger(seed=2), base, expert))


def test_della_keeps_large_entries_more_often() -> None:
    change = drawn(0, 4, 101)
    probability = keep_probabilities(change, 0.5, 0.2)
    largest = np.abs(change).argmax(axis=1)
    assert probability[np.arange(4), largest] == pytest.approx([0.7] * 4)
    assert probability.mean() == pytest.approx(0.5)
    assert probability.min() == pytest.approx(0.3)


def test_a_sum_and_a_scaled_copy() -> None:
    np.testing.assert_allclose(one(AveragingMerger(weights=(2.0, -1.0), normalize=False), [9.0], [3.0], [5.0]), [1.0])
    np.testing.assert_allclose(one(AveragingMerger(normalize=False), [9.0], [3.0], [5.0]), [8.0])
    np.testing.assert_allclose(one(PassthroughMerger(scale=0.5), [9.0], [3.0]), [1.5])


def test_numbers_of_models_and_settings_are_checked() -> None:
    arrays = [{"w": drawn(seed, 4)} for seed in range(4)]
    with pytest.raises(ConfigError, match="models for slerp, besides a base, must be 1 to 2; got 3"):
        merge_arrays(arrays[0], arrays[1:], SlerpMerger())
    with pytest.raises(ConfigError, match="models for model-stock, besides a base, must be at least 2; got 1"):
        merge_arrays(arrays[0], arrays[1:2], ModelStockMerger())
    with pytest.raises(ConfigError, match="`density` has 2 numbers for 3 models"):
        merge_arrays(arrays[0], arrays[1:], DareMerger(density=(0.5, 0.4)))
    for build, message in (
        (lambda: SlerpMerger(t=1.5), "`t` must be from 0"),
        (lambda: DareMerger(density=0.0), "`density` must be above 0"),
        (lambda: DellaMerger(density=0.9, epsilon=0.2), "`epsilon` must be at least 0"),
        (lambda: BreadcrumbsMerger(gamma=1.0), "`gamma` must be at least 0"),
        (lambda: KarcherMerger(tol=0.0), "`tol` above 0"),
        (lambda: NuSlerpMerger(weights=(1.0, 2.0, 3.0)), "3 numbers for 2 models"),
        (lambda: PassthroughMerger(scale=float("inf")), "`scale` must be a finite"),
    ):
        with pytest.raises(ConfigError, match=message):
            build()


def test_presets_of_a_name_can_be_overruled() -> None:
    ties = build_merger("dare_ties")
    assert isinstance(ties, DareMerger)
    assert ties.elect == "sum"
    plain = build_merger("dare-ties", settings={"elect": "none", "density": "0.5,0.4"}, from_text=True)
    assert isinstance(plain, DareMerger)
    assert (plain.elect, plain.density) == ("none", (0.5, 0.4))
