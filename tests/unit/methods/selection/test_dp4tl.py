"""Votes counted by hand, rankings and what they keep."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.core.errors import ConfigError, DataError
from graftwork.methods.selection.dp4tl import ClassRanking, feature_votes, label_votes, source_groups


def test_rows_vote_for_the_class_that_the_surrogate_answers() -> None:
    answers = np.array([[0.1, 0.7, 0.2, 0.0], [0.3, 0.4, 0.2, 0.1], [0.0, 0.1, 0.1, 0.8]])
    assert label_votes(answers).tolist() == [0, 2, 0, 1]
    with pytest.raises(DataError, match="finite"):
        label_votes(np.full((2, 3), np.nan))


def test_rows_vote_for_the_nearest_group_out_of_more_than_two() -> None:
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = np.array([[1.0, 1.0], [9.0, 1.0], [9.0, 9.0], [11.0, 10.0], [1.0, 8.0]])
    assert feature_votes(rows, centres).tolist() == [1, 1, 1, 2]


def test_groups_are_those_of_the_features() -> None:
    random = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    labels = random.integers(3, size=60)
    groups, centres = source_groups(means[labels] + random.normal(size=(60, 2)), 3, seed=1)
    assert len({(one, two) for one, two in zip(labels.tolist(), groups.tolist(), strict=True)}) == 3
    for group in range(3):
        label = labels[groups == group][0]
        np.testing.assert_allclose(centres[group], means[label], atol=1.0)
        # The target's rows of a class vote for its group.
        assert feature_votes(means[label][None] + 0.1, centres)[group] == 1
    with pytest.raises(ConfigError, match="from 1 to 60"):
        source_groups(means[labels], 61)


def test_most_voted_classes_stay_and_ties_are_broken_by_the_seed() -> None:
    ranking = ClassRanking(np.array([3, 0, 9, 0, 5, 0, 0, 1]))
    assert ranking.order[:4].tolist() == [2, 4, 0, 7]
    assert ranking.without_votes == 4
    assert ranking.kept(0.75).tolist() == [2, 4]
    assert ranking.kept(0.0).tolist() == list(range(8))
    assert len(ranking.kept(0.99)) == 1
    np.testing.assert_allclose(ranking.coverage()[:4], [9 / 18, 14 / 18, 17 / 18, 1.0])
    assert [ranking.needed(share) for share in (0.5, 0.51, 1.0)] == [1, 2, 4]
    np.testing.assert_array_equal(ranking.order, ClassRanking(ranking.votes).order)
    orders = {tuple(ClassRanking(ranking.votes, seed).order.tolist()) for seed in range(8)}
    assert len(orders) > 1
    assert {order[:4] for order in orders} == {(2, 4, 0, 7)}


def test_shares_of_rows_are_exact_and_take_whole_classes_first() -> None:
    groups = np.array([0] * 10 + [1] * 5 + [2] * 20 + [3] * 5)
    ranking = ClassRanking(np.array([1, 7, 0, 3]))
    kept = ranking.kept_rows(groups, 0.7)  # 12 of 40 rows
    assert len(kept) == 12
    counts = np.bincount(groups[kept], minlength=4)
    assert counts.tolist() == [2, 5, 0, 5]
    assert (np.diff(kept) > 0).all()
    np.testing.assert_array_equal(ranking.kept_rows(groups, 0.0), np.arange(40))


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(DataError, match="there is none"):
        ClassRanking(np.zeros(4, dtype=np.int64))
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="got"):
            ClassRanking(np.array([1, 2])).kept(share)
