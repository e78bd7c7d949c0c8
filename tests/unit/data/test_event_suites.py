from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from graftwork.core.errors import ConfigError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.independence import independence_report
from graftwork.data.suite import Suite
from graftwork.data.suites.behaviours import BEHAVIOURS, behaviours, turned
from graftwork.data.suites.click_log import click_log
from graftwork.data.suites.latent_events import grouped_vectors, happens, popularity, with_rate


@pytest.fixture(scope="module")
def log() -> Suite:
    return click_log(rows=60_000, test_rows=40_000, with_conversion=True, seed=3)


@pytest.fixture(scope="module")
def shop() -> Suite:
    return behaviours(rows=8_000, test_rows=4_000, seed=3)


def test_rates_and_shares_are_what_was_asked() -> None:
    draw = np.random.default_rng(0)
    logits = with_rate(draw.normal(size=200_000) * 2.0, 0.1)
    assert happens(logits, draw).mean() == pytest.approx(0.1, abs=0.003)
    weights = (logits > 0).astype(float)
    assert np.average(1 / (1 + np.exp(-with_rate(logits, 0.3, weights))), weights=weights) == pytest.approx(0.3, abs=1e-6)
    shares = np.sort(popularity(100, 1.0, draw))[::-1]
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[9] == pytest.approx(10.0)
    group = draw.integers(4, size=5_000)
    vectors = grouped_vectors(group, 4, 500, draw, group_share=0.6)
    within = np.mean([vectors[group == number].var(axis=0).mean() for number in range(4)])
    assert within == pytest.approx(0.4, abs=0.01), "the rest of the variance is the group's"


def test_a_purchase_is_a_click_and_a_conversion(log: Suite) -> None:
    click, purchase, conversion = (log.targets[name] for name in ("click", "purchase", "conversion"))
    truth = log.raw["factors"]["conversion"]
    np.testing.assert_array_equal(purchase, click * truth)
    development = np.concatenate([log.splits["train"], log.splits["val"]])
    np.testing.assert_array_equal(conversion[development] >= 0, click[development] == 1)
    np.testing.assert_array_equal(conversion[log.splits["test"]], truth[log.splits["test"]])
    assert click.mean() == pytest.approx(0.05, abs=0.004)
    assert truth[click == 1].mean() == pytest.approx(0.065, abs=0.01)


def test_clicks_select_likely_conversions_unless_switched_off(log: Suite) -> None:
    def lift(suite: Suite) -> float:
        click, truth = suite.targets["click"], suite.raw["factors"]["conversion"]
        return float(truth[click == 1].mean() / truth[click == 0].mean())

    assert lift(log) > 1.4
    for seed in (3, 4):
        fair = click_log(rows=60_000, test_rows=40_000, click_rate=0.3, selection_bias=False, seed=seed)
        assert lift(fair) == pytest.approx(1.0, abs=0.12)


def test_no_column_gives_an_event_away(log: Suite) -> None:
    factors = log.raw["factors"]
    test = log.splits["test"]
    truth = log.targets["conversion"][test]
    for name, column in factors.items():
        if name != "conversion":
            assert abs(roc_auc_score(truth, column[test]) - 0.5) < 0.25, name
    both = ["common match", "appeal", "quality"]
    assert all(roc_auc_score(log.targets["click"][test], factors[name][test]) > 0.53 for name in both), (
        "what is common counts for clicks"
    )
    assert all(roc_auc_score(truth, factors[name][test]) > 0.53 for name in both), "and for conversions"
    private = {
        name: factors[name][test] for name in ("click match", "conversion match", "noise of clicks", "noise of conversions")
    }
    report = independence_report(private, permutations=50)
    assert report["factors"]["independent"], report["factors"]["worst"]


@pytest.mark.parametrize("build", [click_log, behaviours])
def test_draws_repeat_and_new_rows_can_be_encoded(build: object) -> None:
    one, two, other = (build(rows=500, test_rows=100, seed=seed) for seed in (5, 5, 6))  # type: ignore[operator]
    assert one.fingerprint() == two.fingerprint() != other.fingerprint()
    columns = [column["name"] for column in one.only_input.encoder["columns"]]
    numeric, categorical = one.inputs["numeric"], one.inputs["categorical"]
    cells = [*numeric.T, *[[str(code) if code else None for code in column] for column in categorical.T]]
    frame = pd.DataFrame(dict(zip(columns, cells, strict=False))) if len(set(columns)) == len(columns) else None
    assert frame is not None
    encoded = encoder_from_state(one.only_input.encoder).transform(frame)
    np.testing.assert_array_equal(encoded["categorical"], categorical)
    np.testing.assert_allclose(encoded["numeric"], numeric, atol=1e-6)
    assert (categorical < np.array(one.only_input.sizes["cardinalities"])).all()
    assert (categorical >= 0).all()
    rows = np.concatenate(list(one.splits.values()))
    assert sorted(rows.tolist()) == list(range(600))


def test_turning_keeps_lengths_and_makes_the_angle() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 6))
    other = turned(vectors, np.radians(60.0))
    np.testing.assert_allclose(np.linalg.norm(other, axis=1), np.linalg.norm(vectors, axis=1))
    cosine = (vectors * other).sum(axis=1) / np.square(vectors).sum(axis=1)
    np.testing.assert_allclose(cosine, 0.5)
    np.testing.assert_allclose(turned(turned(vectors, 0.3), -0.3), vectors)


def test_the_dial_sets_the_conflict(shop: Suite) -> None:
    def matches(suite: Suite) -> np.ndarray:
        return np.corrcoef([suite.raw["factors"][f"{name} match"] for name in BEHAVIOURS])

    np.testing.assert_allclose(matches(shop)[np.triu_indices(3, 1)], [0.5, -0.5, 0.5], atol=0.08)
    same = behaviours(rows=800, test_rows=200, conflict_angle=0.0, seed=3)
    np.testing.assert_allclose(matches(same), 1.0)


def test_histories_follow_the_interest_of_their_behaviour(shop: Suite) -> None:
    codes, parts = shop.inputs["categorical"], shop.only_input.sizes["sequences"]
    for name in BEHAVIOURS:
        history = codes[:, slice(*parts[name])]
        filled = history > 0
        assert (np.diff(filled.astype(int), axis=1) <= 0).all(), "padding is behind"
        assert all(len(set(row[row > 0])) == (row > 0).sum() for row in history[::97]), "no item twice"
    lengths = [(codes[:, slice(*parts[name])] > 0).sum(axis=1).mean() for name in BEHAVIOURS]
    np.testing.assert_allclose(lengths, [18, 10, 5], atol=0.5)
    category = np.zeros(401, dtype=np.int64)
    category[codes[:, 0]] = codes[:, 1]
    shown = np.array(
        [
            (category[row[row > 0]] == category[item]).mean()
            for row, item in zip(codes[:, slice(*parts["click"])], codes[:, 0], strict=True)
        ]
    )
    assert roc_auc_score(shop.targets["click"], shown) > 0.55, "histories tell about the next click"


def test_no_user_is_on_both_sides_and_no_column_names_one(shop: Suite) -> None:
    assert shop.groups is not None
    sides = [set(shop.groups[rows].tolist()) for rows in shop.splits.values()]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert len(shop.splits["val"]) == pytest.approx(800, abs=10)
    sizes = shop.only_input.sizes
    assert len(sizes["vocabularies"]) == len(sizes["cardinalities"]) == 6 + 3 * 20
    assert {sizes["vocabularies"][column] for column in range(6, 66)} == {sizes["vocabularies"][sizes["query"]]}


def test_ranges() -> None:
    with pytest.raises(ConfigError, match="click_rate must be from 0.001 to 0.999; got 0"):
        click_log(click_rate=0.0)
    with pytest.raises(ConfigError, match=r"conflict_angle must be from 0.0 to 90.0; got 120"):
        behaviours(conflict_angle=120.0)
    with pytest.raises(ConfigError, match="must be even"):
        behaviours(num_factors=5)
