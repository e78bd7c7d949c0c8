from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from graftwork.core.errors import ConfigError
from graftwork.data.independence import mutual_information
from graftwork.data.suite import Suite
from graftwork.data.suites.aspects import ASPECTS, aspect_weights, aspects, history_weights, mean_tones
from graftwork.data.suites.behaviours import BEHAVIOURS


@pytest.fixture(scope="module")
def shop() -> Suite:
    return aspects(rows=8_000, test_rows=4_000, seed=3)


def test_mean_tones_by_hand() -> None:
    group = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    tone = np.array([1.0, 3.0, -2.0, 5.0])
    history = np.array([[1, 2, 3], [4, 2, 0], [4, 0, 0], [0, 0, 0]])  # codes are item numbers plus one
    item = np.array([0, 3, 0, 2])
    # Item 0 shares the first aspect with items 0 and 1, the second with 0 and 2; item 3 the first with 3, the second with 1 and 3.
    np.testing.assert_allclose(mean_tones(history, item, group, tone), [[2.0, 5.0, 0.0, 0.0], [-0.5, 4.0, 0.0, 0.0]])


def test_tasks_share_aspects_and_histories_with_other_weights() -> None:
    weights, own = aspect_weights(0.4), history_weights()
    assert weights.shape == own.shape == (len(BEHAVIOURS), len(ASPECTS))
    assert (np.abs(weights) >= 0.4).all(), "every aspect counts for every task"
    assert weights.argmax(axis=1).tolist() == own.argmax(axis=1).tolist() == [0, 1, 2]
    assert all({1, -1} == set(np.sign(weights[:, aspect])) for aspect in range(3)), "an aspect speaks for some and against others"
    assert (own > 0).all()
    np.testing.assert_allclose((own**2).sum(axis=1), 1.0)
    for agreed in (aspect_weights(0.4, 0.0), history_weights(0.0)):
        np.testing.assert_allclose(agreed, agreed[:1].repeat(3, axis=0))


def test_conflict_parts_what_tasks_ask_of_the_same_histories(shop: Suite) -> None:
    def matches(suite: Suite) -> np.ndarray:
        return np.corrcoef([suite.raw["factors"][f"{name} match"] for name in BEHAVIOURS])

    assert np.abs(matches(shop)[np.triu_indices(3, 1)]).max() < 0.3
    np.testing.assert_allclose(matches(aspects(rows=800, test_rows=200, conflict=0.0, seed=3)), 1.0)
    half = matches(aspects(rows=8_000, test_rows=200, conflict=0.5, seed=3))[np.triu_indices(3, 1)]
    assert ((half > 0.3) & (half < 0.95)).all()


def test_labels_follow_their_own_match_and_fields(shop: Suite) -> None:
    factors = shop.raw["factors"]
    for name in BEHAVIOURS:
        label = shop.targets[name]
        areas = {other: roc_auc_score(label, factors[f"{other} match"]) for other in BEHAVIOURS}
        assert areas[name] > 0.75
        assert all(abs(area - 0.5) < 0.12 for other, area in areas.items() if other != name)
        assert roc_auc_score(label, factors[f"{name} effects"]) > 0.53
        both = roc_auc_score(label, factors[f"{name} match"] + factors[f"{name} effects"])
        assert areas[name] < both < 0.95, "fields help, and noise is left"
    assert [shop.targets[name].mean() for name in BEHAVIOURS] == pytest.approx([0.40, 0.35, 0.30], abs=0.02)


def test_no_label_can_be_read_off_another(shop: Suite) -> None:
    # One row a user: those of one user are alike.
    rows = np.arange(0, 12_000, 8)
    labels = [shop.targets[name][rows] for name in BEHAVIOURS]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert mutual_information(labels[first], labels[second]) < 0.02, "of 0.6 to 0.7 nats that a label has"


def test_histories(shop: Suite) -> None:
    codes, parts = shop.inputs["categorical"], shop.only_input.sizes["sequences"]
    lengths = []
    for name in BEHAVIOURS:
        history = codes[:, slice(*parts[name])]
        filled = history > 0
        assert (np.diff(filled.astype(int), axis=1) <= 0).all(), "padding is behind"
        assert all(len(set(row[row > 0])) == (row > 0).sum() for row in history[::97]), "no item twice"
        lengths.append(filled.sum(axis=1).mean())
    np.testing.assert_allclose(lengths, [5.0, 4.0, 3.0], atol=0.1)
    sizes = shop.only_input.sizes
    assert len(sizes["vocabularies"]) == len(sizes["cardinalities"]) == 4 + 3 * 5
    assert {sizes["vocabularies"][column] for column in range(4, 19)} == {sizes["vocabularies"][sizes["query"]]}


def test_no_user_is_on_both_sides(shop: Suite) -> None:
    assert shop.groups is not None
    sides = [set(shop.groups[rows].tolist()) for rows in shop.splits.values()]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert len(shop.splits["val"]) == pytest.approx(800, abs=10)
    assert sorted(np.concatenate(list(shop.splits.values())).tolist()) == list(range(12_000))


def test_draws_repeat() -> None:
    one, two, other = (aspects(rows=500, test_rows=100, seed=seed) for seed in (5, 5, 6))
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()


def test_ranges() -> None:
    with pytest.raises(ConfigError, match=r"conflict must be from 0.0 to 1.0; got 2"):
        aspects(conflict=2.0)
    with pytest.raises(ConfigError, match="num_items must be from 5 to 100000; got 4"):
        aspects(num_items=4)
