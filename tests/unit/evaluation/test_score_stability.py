"""Intervals of scores have the width that repeated sampling shows, are paired among sources, and standings follow from them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.evaluation.score_stability import HalfSamples, narrowed, stable_score, standings
from graftwork.methods.selection.h_score import HScore
from graftwork.methods.selection.leep import Leep
from graftwork.methods.selection.nce import NegativeConditionalEntropy
from graftwork.methods.selection.nearest import NearestNeighbours

Floats = NDArray[np.float64]


def world(seed: int, rows: int = 400) -> tuple[Floats, NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=rows)
    return np.eye(3)[labels] @ np.diag([1.0, 2.0, 0.5]) @ np.eye(3, 5) + random.normal(size=(rows, 5)), labels


def test_half_samples_vary_as_new_data_does() -> None:
    true_spread = np.std([HScore().score(*world(seed)) for seed in range(150)])
    spreads = [np.std(stable_score(HScore, *world(1000 + seed), HalfSamples(400, draws=60)).replicates) for seed in range(10)]
    assert np.mean(spreads) == pytest.approx(true_spread, rel=0.3)


def test_the_value_is_the_score_of_all_rows_and_lies_in_its_interval() -> None:
    features, labels = world(0)
    found = stable_score(HScore, features, labels, HalfSamples(400))
    assert found.value == pytest.approx(HScore().score(features, labels), rel=1e-9)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.replicates.mean() == pytest.approx(found.value)
    again = stable_score(HScore, features, labels, HalfSamples(400))
    np.testing.assert_array_equal(found.replicates, again.replicates)


def test_scores_with_two_passes_see_each_half_twice() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 4)) + 2 * np.eye(4)[random.integers(4, size=200)]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = probabilities.argmax(axis=1) % 3
    samples = HalfSamples(200, draws=10)
    two = stable_score(Leep, probabilities, labels, samples)
    one = stable_score(NegativeConditionalEntropy, probabilities, labels, samples)
    assert two.value == pytest.approx(Leep().score(probabilities, labels), rel=1e-9)
    assert np.std(two.replicates) > 0
    assert np.isfinite(one.replicates).all()


def test_groups_stay_together_and_too_few_are_refused() -> None:
    groups = np.repeat(np.arange(30), 10)
    samples = HalfSamples(300, groups=groups)
    for bundle in samples.bundles(8):
        assert all(np.isin(np.flatnonzero(groups == group), bundle).all() for group in np.unique(groups[bundle]))
    rows = np.concatenate(samples.bundles(8))
    assert sorted(rows.tolist()) == list(range(300))
    assert len(samples.bundles(4000)) == 8, "wide statistics get fewer bundles"
    with pytest.raises(DataError, match="two groups"):
        HalfSamples(5, groups=np.zeros(5, dtype=int))


def test_halves_without_a_second_class_are_left_out() -> None:
    features = np.random.default_rng(0).normal(size=(40, 3))
    labels = np.zeros(40, dtype=int)
    labels[:1] = 1
    found = stable_score(HScore, features, labels, HalfSamples(40, draws=20))
    assert np.isnan(found.replicates).any()
    assert np.isfinite(found.replicates).any()


def test_wide_features_keep_their_main_directions() -> None:
    random = np.random.default_rng(0)
    low = random.normal(size=(300, 10)).astype(np.float32)
    wide = low @ random.normal(size=(10, 400)).astype(np.float32)
    narrow = narrowed(wide)
    assert narrow.shape == (300, 256)
    np.testing.assert_allclose(narrow @ narrow.T, wide @ wide.T, rtol=1e-2, atol=0.5)
    assert narrowed(low) is low
    labels = (low[:, 0] > 0).astype(int)
    found = stable_score(lambda: NearestNeighbours(), wide, labels, HalfSamples(300, draws=10), replicated=narrow)
    assert found.value == NearestNeighbours().score(wide, labels)


def test_standings_count_ranks_and_how_often_a_source_is_first() -> None:
    values = np.array([[3.0, 30.0], [2.0, 10.0], [1.0, 20.0]])
    replicates = np.repeat(values[None], 10, axis=0)
    replicates[:4, 0] = 0.0  # in four draws the first source is the worst
    found = standings(values, replicates)
    assert [one.mean_rank for one in found] == [1.0, 2.5, 2.5]
    assert [one.first_share for one in found] == pytest.approx([0.6, 0.2, 0.2])
    assert found[0].rank_low == 1.0
    assert found[0].rank_high == 3.0


def test_intervals_stay_where_scores_can_be() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(2, size=60)
    features = 6.0 * labels[:, None] + random.normal(size=(60, 3))
    found = stable_score(NearestNeighbours, features, labels, HalfSamples(60))
    assert found.value > 0.95
    assert found.interval[1] <= 1.0
