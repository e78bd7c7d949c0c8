from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError, DataError
from graftwork.data.independence import discretise, independence_report, mutual_information
from graftwork.data.mixing import mixing_probabilities, parse_mixing


def test_information_by_hand() -> None:
    coin = np.tile([0, 1], 500)
    # A copy of a fair coin holds log 2; the bias term is (2 - 1) * (2 - 1) / (2 * 1000).
    assert mutual_information(coin, coin) == pytest.approx(np.log(2) - 0.0005)
    other = np.repeat([0, 1], 500)
    assert mutual_information(coin, other) == pytest.approx(-0.0005)
    missing = np.full(1000, -1)
    assert mutual_information(coin, missing) == 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_information_is_symmetric_and_invariant_to_names(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, two = generator.integers(-1, 4, 200), generator.integers(-1, 3, 200)
    value = mutual_information(one, two)
    assert mutual_information(two, one) == pytest.approx(value)
    renamed = np.array([2, 0, 3, 1, -1])[one]
    assert mutual_information(renamed, two) == pytest.approx(value)


def test_bias_is_removed_on_average() -> None:
    generator = np.random.default_rng(0)
    values = [mutual_information(generator.integers(0, 8, 500), generator.integers(0, 8, 500)) for _ in range(200)]
    assert abs(np.mean(values)) < 0.002


def test_bins() -> None:
    assert discretise(np.array([5, 7, -1, 5])).tolist() == [0, 1, -1, 0]
    bins = discretise(np.random.default_rng(0).normal(size=800), 8)
    assert np.bincount(bins).tolist() == [100] * 8
    assert discretise(np.array([0.5, np.nan, 1.5])).tolist() == [0, -1, 1]


def test_report_finds_the_dependent_pair_and_only_that() -> None:
    generator = np.random.default_rng(0)
    factors = {
        "shape": generator.integers(0, 4, 2000),
        "size": generator.normal(size=2000),
        "light": generator.normal(size=(2000, 2)),
    }
    labels = {
        "area": factors["size"] ** 2,
        "kind": factors["shape"],
        "glow": generator.normal(size=2000),
        "big": (factors["size"] > 1).astype(int),
    }
    report = independence_report(factors, labels)
    json.dumps(report, allow_nan=False)
    assert report["factors"]["independent"]
    assert len(report["factors"]["pairs"]) == 6
    assert not report["labels"]["independent"]
    assert report["labels"]["worst"]["names"] == ["area", "big"]
    assert [pair["names"] for pair in report["labels"]["pairs"] if pair["dependent"]] == [["area", "big"]]
    assert report["labels"]["worst"]["p_value"] == pytest.approx(1 / 201)


def test_false_alarms_are_rare() -> None:
    alarms = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        columns = {str(index): generator.integers(0, 3, 150) for index in range(4)}
        alarms += not independence_report(columns, permutations=60, alpha=0.05, least_share=0.0, seed=seed)["factors"][
            "independent"
        ]
    assert alarms <= 4


def test_empty_and_unequal() -> None:
    assert independence_report({})["factors"] == {"pairs": [], "worst": None, "independent": True}
    with pytest.raises(DataError, match="same number of rows"):
        independence_report({"a": np.zeros(3), "b": np.zeros(4)})


def test_mixing() -> None:
    assert mixing_probabilities([30, 10]).tolist() == [0.75, 0.25]
    assert mixing_probabilities([30, 0, 10], "uniform").tolist() == [0.5, 0.0, 0.5]
    assert mixing_probabilities([900, 100], 2).tolist() == pytest.approx([0.75, 0.25])
    assert parse_mixing("temperature") == 2.0
    assert parse_mixing("temperature", 5) == 5.0
    with pytest.raises(
        ConfigError,
        match="one of proportional, uniform, balanced, round-robin, temperature.*got 'unifrom'. Did you mean 'uniform'",
    ):
        parse_mixing("unifrom")
    for wrong in (0.5, float("nan"), True):
        with pytest.raises(ConfigError, match="at least 1"):
            parse_mixing(wrong)
    with pytest.raises(ConfigError, match="sizes must be at least 0"):
        mixing_probabilities([0, 0])


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=6), st.floats(1, 50))
def test_mixing_flattens_but_keeps_order(counts: list[int], temperature: float) -> None:
    shares = mixing_probabilities(counts, temperature)
    assert shares.sum() == pytest.approx(1.0)
    order = np.argsort(counts, kind="stable")
    assert (np.diff(shares[order]) >= -1e-12).all()
    assert shares.max() <= mixing_probabilities(counts).max() + 1e-12
