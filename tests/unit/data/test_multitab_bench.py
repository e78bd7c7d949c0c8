from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.data.suites.flights import flights
from graftwork.data.suites.multitab_bench import multitab_bench, task_weights


@given(st.integers(1, 8), st.floats(0.0, 1.0), st.integers(0, 99))
def test_weights_have_unit_length_and_the_asked_cosine(num_tasks: int, rho: float, seed: int) -> None:
    weights = task_weights(num_tasks, 12, rho, np.random.default_rng(seed))
    gram = weights @ weights.T
    np.testing.assert_allclose(gram, np.full_like(gram, rho) + (1 - rho) * np.eye(num_tasks), atol=1e-9)


def test_linear_tasks_correlate_as_their_weights() -> None:
    suite = multitab_bench(rows=40_000, test_rows=1_000, num_tasks=4, rho=0.6, degrees=(1,), seed=3)
    labels = np.concatenate([suite.targets[name] for name in suite.task_names], axis=1)
    np.testing.assert_allclose(np.corrcoef(labels.T)[np.triu_indices(4, 1)], 0.6, atol=0.02)


def test_labels_are_the_polynomial_and_standardised() -> None:
    suite = multitab_bench(rows=5_000, test_rows=500, num_tasks=3, degrees=(1, 3, 2), sigma=0.0, seed=1)
    weights = np.array(suite.raw["weights"])
    activity = suite.inputs["numeric"].astype(np.float64) @ weights.T
    cubic = activity[:, 1] + activity[:, 1] ** 2 + activity[:, 1] ** 3
    np.testing.assert_allclose(suite.targets["y1"][:, 0], (cubic - cubic.mean()) / cubic.std(), rtol=1e-3, atol=1e-3)
    for name in suite.task_names:
        assert abs(suite.targets[name].std() - 1.0) < 1e-3


def test_splits_are_disjoint_and_draws_repeat() -> None:
    first, second = multitab_bench(rows=900, test_rows=200, seed=5), multitab_bench(rows=900, test_rows=200, seed=5)
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != multitab_bench(rows=900, test_rows=200, seed=6).fingerprint()
    rows = np.concatenate(list(first.splits.values()))
    assert sorted(rows.tolist()) == list(range(900))


def test_impossible_worlds_are_refused_with_the_bound() -> None:
    with pytest.raises(ConfigError, match="`num_tasks` must be at most"):
        multitab_bench(rows=100, test_rows=10, num_tasks=17)
    with pytest.raises(ConfigError, match=r"between -0.250 .for 5 tasks. and 1; got -0.5"):
        multitab_bench(rows=100, test_rows=10, rho=-0.5)


def test_flights_keeps_delays_out_of_the_features_and_missing_labels_missing() -> None:
    suite = flights(rows=3_000, seed=1)
    names = {column["name"] for column in suite.only_input.encoder["columns"]}
    assert not names & {"dep_delay", "arr_delay", "dep_time", "arr_time", "air_time"}
    cancelled = suite.targets["cancelled"] == 1
    assert 0.005 < cancelled.mean() < 0.06
    assert np.isnan(suite.targets["air_time"][cancelled]).all()
    assert (suite.targets["late"][cancelled] == -1).all()
    assert suite.fingerprint() == flights(rows=3_000, seed=1).fingerprint()


@pytest.mark.parametrize("test_rows", [5_000, 4_000, 3_991, 0])
def test_test_rows_leave_rows_to_train_on(test_rows: int) -> None:
    with pytest.raises(ConfigError, match=rf"`test_rows` must be between 1 and rows - 10.*got {test_rows} of 4000 rows"):
        multitab_bench(rows=4_000, test_rows=test_rows)
    assert {name: len(rows) for name, rows in multitab_bench(rows=4_000, test_rows=3_990).splits.items()} == {
        "train": 9,
        "val": 1,
        "test": 3_990,
    }
