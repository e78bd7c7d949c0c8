"""Gaussian processes: the kernel against scikit-learn's, settings by likelihood, calibrated classes, graphs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite
from sklearn.datasets import load_wine, make_friedman1
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, Matern, WhiteKernel

from graftwork.core.records import TaskSpec
from graftwork.domains.tabular.gaussian_kernel import Kernel, Posterior, _objective, fit_kernel
from graftwork.domains.tabular.gaussian_process import GaussianProcessLearner

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 4))
Y = np.stack([np.sin(X[:, 0]), X[:, 1] * X[:, 2]], axis=1)
Y -= Y.mean(axis=0)
GROUPS = np.array([0, 0, 1, 2])
SETTINGS = np.array([0.3, -1.0, -2.0, 0.2, 0.5, 1.0])
KERNEL = Kernel(SETTINGS, GROUPS)
THEIRS = (
    np.exp(0.3) * Matern(np.exp(SETTINGS[3:])[GROUPS], nu=2.5) + np.exp(-1.0) / 4 * DotProduct(1e-8) + WhiteKernel(np.exp(-2.0))
)


def library(x: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
    return GaussianProcessRegressor(THEIRS, optimizer=None, alpha=1e-12).fit(x, y)


def test_predictions_are_the_librarys() -> None:
    fresh = DRAW.normal(size=(9, 4))
    found = KERNEL.covariance(fresh, X) @ Posterior.of(KERNEL, X, Y).weights
    np.testing.assert_allclose(found, library(X, Y).predict(fresh), atol=1e-6)


def test_a_row_left_out_is_predicted_from_the_others() -> None:
    others = np.arange(40) != 3
    expected = library(X[others], Y[others]).predict(X[[3]])
    np.testing.assert_allclose(Posterior.of(KERNEL, X, Y).left_out[[3]], expected, atol=1e-6)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    start = np.zeros(6)
    value, gradient = _objective(SETTINGS, KERNEL, X, Y, start)
    for place, step in enumerate(1e-5 * np.eye(6)):
        up, down = (_objective(SETTINGS + sign * step, KERNEL, X, Y, start)[0] for sign in (1, -1))
        assert abs((up - down) / 2e-5 - gradient[place]) < 1e-7
    prior = 0.5 * float(np.square(SETTINGS[:3] / 2).sum() + np.square(SETTINGS[3:]).sum())
    likelihood = library(X, Y).log_marginal_likelihood_value_ + 40 * np.log(2 * np.pi)
    assert value == pytest.approx((prior - likelihood) / 80, abs=1e-6)


def test_columns_that_say_nothing_get_long_lengths() -> None:
    x = DRAW.normal(size=(120, 3))
    y = np.sin(2 * x[:, [0]])
    kernel, _ = fit_kernel(x, y - y.mean(axis=0), np.arange(3))
    assert kernel.lengths[0] < 0.5 * kernel.lengths[1:].min()
    assert kernel.noise < 0.05


def test_it_beats_a_line_on_a_smooth_function(tmp_path: Path) -> None:
    x, y = make_friedman1(200, n_features=6, noise=0.5, random_state=0)
    suite = number_suite((x - x.mean(axis=0)) / x.std(axis=0), y[:, None])
    learner = GaussianProcessLearner(context_of(suite, tmp_path))
    learner.train(1)
    rows = suite.splits["test"]
    error = float(np.square(learner.predict(rows)["y0"] - suite.targets["y0"][rows]).mean())
    assert error < 0.08 * y.var()  # of which the noise is 0.01; a line leaves a quarter


def test_probabilities_of_classes_are_calibrated(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    suite = number_suite((x - x.mean(axis=0)) / x.std(axis=0), y[:, None].astype(float))
    rows = np.random.default_rng(0).permutation(len(x))
    suite = replace(
        suite,
        tasks=(TaskSpec(name="y0", kind="multiclass", size=3),),
        targets={"y0": y.astype(np.int64)},
        splits={"train": rows[:110], "val": rows[110:112], "test": rows[112:]},
    )
    learner = GaussianProcessLearner(context_of(suite, tmp_path))
    learner.train(1)
    found = learner.predict(rows[112:])["y0"]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert -np.log(found[np.arange(66), y[rows[112:]]]).mean() < 0.2


def test_the_graph_computes_the_same(tmp_path: Path) -> None:
    suite = mixed_suite(rows=100, cardinality=5)
    learner = GaussianProcessLearner(context_of(suite, tmp_path))
    learner.train(1)
    learner.export(tmp_path / "model")
    rows = np.arange(len(suite))
    expected = learner.predict(rows)
    for name, found in graph_answers(tmp_path / "model", suite, rows).items():
        scale = np.asarray(suite.task(name).scale or (1.0,))
        assert np.abs((found - expected[name]) / scale).max() < 1e-4


def test_two_rows_suffice(tmp_path: Path) -> None:
    suite = number_suite(np.array([[0.0], [1.0], [0.5], [0.2]]), np.array([[1.0], [3.0], [0.0], [0.0]]), train=0.5)
    learner = GaussianProcessLearner(context_of(suite, tmp_path))
    learner.train(1)
    assert np.isfinite(learner.predict(np.arange(4))["y0"]).all()
