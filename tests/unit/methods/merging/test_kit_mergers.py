"""Multi-SLERP, NearSwap, SCE, Arcee fusion and RAM: values by hand. Numbers of mergekit are in the tests of its YAML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.interfaces.merger import Merger
from graftwork.methods.merging.arcee_fusion import ArceeFusionMerger, fusion_importance
from graftwork.methods.merging.multislerp import MultiSlerpMerger
from graftwork.methods.merging.nearswap import NearSwapMerger
from graftwork.methods.merging.ram import RamMerger, RamPlusMerger
from graftwork.methods.merging.sce import SceMerger
from graftwork.methods.merging.spherical import KarcherMerger


def one(merger: Merger, base: Any, *experts: Any, has_base: bool = True) -> np.ndarray:
    merger.has_base = has_base
    arrays = [np.asarray(item, np.float32) for item in (base, *experts)]
    return np.asarray(merger.merge_tensor("w", arrays[0], arrays[1:]))


def test_multislerp_of_two_directions_lies_between_them() -> None:
    merged = one(MultiSlerpMerger(), np.zeros(2), [2.0, 0.0], [0.0, 4.0])
    np.testing.assert_allclose(merged, [3 * np.sqrt(0.5)] * 2, rtol=1e-6)
    # A base moves the origin.
    np.testing.assert_allclose(one(MultiSlerpMerger(), [1.0, 1.0], [3.0, 1.0], [1.0, 5.0]), merged + 1, rtol=1e-6)
    np.testing.assert_allclose(one(MultiSlerpMerger(), [9.0, 9.0], [2.0, 0.0], [0.0, 4.0], has_base=False), merged, rtol=1e-6)
    np.testing.assert_array_equal(one(MultiSlerpMerger(), [1.0, 1.0], [2.0, 5.0]), [2.0, 5.0])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 20), count=st.integers(2, 5))
def test_multislerp_of_near_models_is_near_their_karcher_mean(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    middle = random.normal(size=12)
    models = [middle + 0.05 * random.normal(size=12) for _ in range(count)]
    merged = one(MultiSlerpMerger(), np.zeros(12), *models)
    np.testing.assert_allclose(merged, one(KarcherMerger(max_iter=50), np.zeros(12), *models), atol=2e-3)


def test_multislerp_says_where_there_is_no_mean() -> None:
    np.testing.assert_allclose(one(MultiSlerpMerger(), np.zeros(2), [1.0, 0.0], [-3.0, 0.0]), [-1.0, 0.0])
    thirds = [[np.cos(angle), np.sin(angle)] for angle in (0.0, 2 * np.pi / 3, 4 * np.pi / 3)]
    with pytest.raises(DataError, match="'w': the weighted directions of the models cancel each other out"):
        one(MultiSlerpMerger(eps=1e-6), np.zeros(2), *thirds)
    np.testing.assert_array_equal(one(MultiSlerpMerger(), np.ones(2), np.ones(2), np.ones(2), np.ones(2)), np.ones(2))
    for wrong in ({"eps": 0.0}, {"weights": (1.0, -1.0)}):
        with pytest.raises(ConfigError, match="above 0|add up to 0"):
            MultiSlerpMerger(**wrong)


def test_nearswap_takes_over_what_is_near() -> None:
    np.testing.assert_allclose(one(NearSwapMerger(t=0.5), [0.0, 0.0, 0.0], [0.2, 3.0, -3.0]), [0.2, 0.5, -0.5])
    with pytest.raises(ConfigError, match="largest change of an entry"):
        NearSwapMerger(t=-1.0)


def test_sce_by_hand() -> None:
    # mean squares 5 and 2.5: weights 2 / 3 and 1 / 3; signs of the sums + and -
    merged = one(SceMerger(), np.zeros(2), [3.0, 1.0], [1.0, -2.0])
    np.testing.assert_allclose(merged, [(2 * 3 + 1) / 3, -2.0], rtol=1e-6)
    # variances 1 and 2.25: the second entry alone is selected; there the first model weighs 1 / 5, and the second one's sign wins
    np.testing.assert_allclose(one(SceMerger(select_topk=0.5), np.zeros(2), [3.0, 1.0], [1.0, -2.0]), [0.0, -2.0], rtol=1e-6)
    np.testing.assert_array_equal(one(SceMerger(select_topk=0.5), np.ones(2), [3.0, 1.0]), np.ones(2))
    with pytest.raises(ConfigError, match="share from 0 to 1"):
        SceMerger(select_topk=1.5)


def test_arcee_fusion_takes_over_outliers_alone() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=(8, 16)).astype(np.float32)
    expert = base + 0.01 * random.normal(size=(8, 16)).astype(np.float32)
    expert[3, 4] += 2.0
    merged = one(ArceeFusionMerger(), base, expert)
    importance = fusion_importance(base, expert)
    ordered = np.sort(importance, axis=None)
    low, middle, high = (ordered[int(share * 127)] for share in (0.25, 0.5, 0.75))
    taken = importance >= middle + 1.5 * (high - low)
    assert taken[3, 4]
    assert 0 < taken.sum() < 64
    np.testing.assert_array_equal(merged, np.where(taken, expert, base))
    # Rows that are equal say nothing, whatever their size.
    assert not fusion_importance(base, base).any()


def test_ram_averages_what_is_shared_alone() -> None:
    base, models = np.zeros(4), ([1.0, 2.0, 0.0, 1e-6], [3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 5.0, 0.0])
    np.testing.assert_allclose(one(RamMerger(), base, *models), [2.0, 2.0, 5.0, 0.0])
    np.testing.assert_allclose(one(RamMerger(epsilon=1.5), base, *models), [3.0, 2.0, 5.0, 0.0])
    # The first model has one entry of its own and shares one: 1 + 0.5 * min(1, 0.6); the third shares none.
    np.testing.assert_allclose(one(RamPlusMerger(r=0.5, alpha=0.6), base, *models), [2.0, 2.6, 5.0, 0.0])
    for wrong in ({"epsilon": -1.0}, {"r": -1.0}, {"alpha": float("nan")}):
        with pytest.raises(ConfigError, match="at least 0"):
            RamPlusMerger(**wrong)
