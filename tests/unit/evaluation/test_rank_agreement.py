"""Weighted Kendall tau against its definition, and intervals over targets and pools."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import DataError
from graftwork.evaluation.rank_agreement import rank_agreement, weighted_tau


def test_weighted_tau_follows_its_definition() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.normal(size=7), random.normal(size=7)

    def by_rank_of(values: np.ndarray) -> float:
        rank = np.argsort(np.argsort(-values))
        agreed = total = 0.0
        for i in range(7):
            for j in range(7):
                if i != j:
                    weight = 1 / (rank[i] + 1) + 1 / (rank[j] + 1)
                    agreed += weight * np.sign(scores[i] - scores[j]) * np.sign(truth[i] - truth[j])
                    total += weight
        return agreed / total

    assert weighted_tau(scores, truth) == pytest.approx((by_rank_of(scores) + by_rank_of(truth)) / 2)


def test_perfect_reversed_and_flat_scores() -> None:
    truth = np.array([0.3, 0.5, 0.9, 0.1])
    assert weighted_tau(2 * truth, truth) == pytest.approx(1.0)
    assert weighted_tau(-truth, truth) == pytest.approx(-1.0)
    assert weighted_tau(np.ones(4), truth) == 0.0
    with pytest.raises(DataError, match="finite"):
        weighted_tau(np.array([1.0, np.nan]), np.array([1.0, 2.0]))


def test_the_interval_holds_the_mean_and_shrinks_with_the_noise() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(5, 10))
    close = rank_agreement(truth + 0.1 * random.normal(size=truth.shape), truth, draws=200)
    far = rank_agreement(truth + 3.0 * random.normal(size=truth.shape), truth, draws=200)
    assert close.low <= close.tau <= close.high
    assert close.tau > 0.8 > far.tau
    assert far.high - far.low > close.high - close.low
    assert len(close.by_target) == 5
    with pytest.raises(DataError, match="3 or more"):
        rank_agreement(truth[:, :2], truth[:, :2])
