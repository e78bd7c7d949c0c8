from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from graftwork.math.representation_similarity import linear_cka, parc, similarity_weights


@pytest.mark.parametrize("classes", [True, False])
def test_parc_against_a_slow_one(classes: bool) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((20, 6))
    labels = random.integers(0, 4, 20) if classes else random.standard_normal((20, 1))
    hot = np.eye(4)[labels] if classes else labels
    near, wanted = [], []
    for one in range(20):
        for two in range(one + 1, 20):
            near.append(round(1 - np.corrcoef(features[one], features[two])[0, 1], 12))
            apart = round(1 - np.corrcoef(hot[one], hot[two])[0, 1], 12) if classes else abs(hot[one, 0] - hot[two, 0])
            wanted.append(apart)
    assert parc(features, labels) == pytest.approx(spearmanr(near, wanted).statistic, abs=1e-9)


def test_parc_of_what_does_not_vary_is_nothing() -> None:
    features = np.random.default_rng(0).standard_normal((6, 3))
    assert parc(features, np.zeros(6, dtype=np.int64)) == 0.0
    assert parc(np.ones((6, 3)), np.arange(6) % 2) == 0.0


def test_features_of_the_classes_are_more_similar_than_noise() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    told = np.eye(3)[labels] + 0.3 * random.standard_normal((90, 3))
    assert parc(told, labels) > 0.5 > abs(parc(random.standard_normal((90, 3)), labels)) + 0.3


def test_weights_are_powers_without_what_is_below_nothing() -> None:
    assert similarity_weights(np.array([0.4, 0.2, -0.3]), 1.0).tolist() == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert similarity_weights(np.array([0.4, np.nan, 0.0]), 0.0).tolist() == [1.0, 0.0, 0.0]
    assert similarity_weights(np.array([-0.1, 0.0]), 9.0).tolist() == [0.5, 0.5]
    # Powers of tiny similarities are no underflow.
    assert similarity_weights(np.array([2e-30, 1e-30]), 12.0)[0] > 0.99


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_cka_does_not_see_turns_and_sizes(scale: float) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((30, 5))
    turn, _ = np.linalg.qr(random.standard_normal((5, 5)))
    assert linear_cka(features, scale * features @ turn + 2.0) == pytest.approx(1.0)


def test_cka_against_gram_matrices() -> None:
    random = np.random.default_rng(0)
    one, two = random.standard_normal((12, 5)), random.standard_normal((12, 3))
    centre = np.eye(12) - 1 / 12
    left, right = centre @ one @ one.T @ centre, centre @ two @ two.T @ centre
    expected = (left * right).sum() / np.sqrt((left * left).sum() * (right * right).sum())
    assert linear_cka(one, two) == pytest.approx(expected)
    assert linear_cka(one, np.ones((12, 2))) == 0.0
