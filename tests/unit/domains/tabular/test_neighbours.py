"""Nearest neighbours: means over the rows around, ties, chosen neighbourhoods, graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.neighbors import KNeighborsRegressor

from graftwork.data.suite import Suite
from graftwork.domains.tabular.distances import square_distances
from graftwork.domains.tabular.neighbours import NeighboursLearner, _weights


def trained(suite: Suite, folder: Path) -> Any:
    learner = NeighboursLearner(context_of(suite, folder))
    learner.train(1)
    return learner


def chosen(learner: Any, folder: Path) -> list[int]:
    learner.save(folder / "saved")
    facts = json.loads((folder / "saved" / "model.json").read_text())["facts"]
    return [found["neighbours"] for found in facts["settings by target"].values()]


def test_weights_are_those_of_a_kernel_that_the_library_can_be_given() -> None:
    draw = np.random.default_rng(0)
    x, y, fresh = draw.normal(size=(50, 3)), draw.normal(size=50), draw.normal(size=(7, 3))
    weights = _weights(square_distances(fresh, x), 8, 3)
    reach = np.sort(square_distances(fresh, x), axis=1)[:, 7] * 1.1 + 3e-6

    def kernel(distances: np.ndarray) -> np.ndarray:
        return np.maximum(1 - np.square(distances) / reach[:, None], 0)

    model = KNeighborsRegressor(50, weights=kernel).fit(x, y)
    np.testing.assert_allclose(weights @ y / weights.sum(axis=1), model.predict(fresh), atol=1e-10)


def test_equally_far_rows_all_count() -> None:
    x = np.repeat([[0.0], [1.0], [2.0]], 4, axis=0)
    weights = _weights(square_distances(np.array([[1.0], [0.5]]), x), 3, 1)
    np.testing.assert_allclose(weights[0], [0] * 4 + [1] * 4 + [0] * 4)
    np.testing.assert_allclose(weights[1, :8], weights[1, 0])
    assert weights[1, 0] > 0
    assert not weights[1, 8:].any()


def test_noise_widens_the_neighbourhood(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(300, 2))
    smooth = np.sin(3 * x[:, [0]])
    suite = number_suite(x, np.concatenate([smooth, 0.1 * smooth + draw.normal(size=(300, 1))], axis=1))
    few, many = chosen(trained(suite, tmp_path), tmp_path)
    assert few <= 10
    assert many == 40


@pytest.mark.parametrize("cardinality", [5, 60])
def test_the_graph_computes_the_same(tmp_path: Path, cardinality: int) -> None:
    suite = mixed_suite(cardinality=cardinality)
    built = trained(suite, tmp_path)
    built.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = built.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4
    np.testing.assert_allclose(expected["kind"].sum(axis=1), 1, rtol=1e-5)
    assert expected["kind"].min() > 0


def test_stored_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftwork.domains.tabular.neighbours.MOST_ROWS", 150)
    draw = np.random.default_rng(2)
    x = draw.normal(size=(400, 2))
    learner = trained(number_suite(x, x), tmp_path)
    learner.save(tmp_path / "saved")
    file = next((tmp_path / "saved").glob("*.safetensors"))
    assert file.stat().st_size < 150 * (4 * 4 + 2 * 8) + 2000
    gap = learner.predict(np.arange(340, 400))["y0"][:, 0] - x[340:, 0]
    assert np.square(gap).mean() < 0.2


def test_one_row_suffices(tmp_path: Path) -> None:
    x = np.arange(4.0)[:, None]
    suite = number_suite(x, x + 3, train=0.5)
    holed = suite.with_targets({"y0": np.where(np.arange(4)[:, None] == 1, np.float32(4), np.float32(np.nan))})
    np.testing.assert_allclose(trained(holed, tmp_path).predict(np.arange(4))["y0"], 4.0)
