"""CatBoost and XGBoost as learners, beside what the libraries do by themselves; skipped without the packages."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classical_suites import context_of, graph_answers, mixed_suite, number_suite

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.optional import has
from graftwork.data.suite import Suite
from graftwork.workflows import portfolio
from graftwork.workflows.portfolio import load_catalogue, read_plan_file

STEPS = {"catboost": 3, "xgboost": 40}


@pytest.fixture(params=sorted(STEPS))
def name(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


def made(name: str, suite: Suite, folder: Path, **settings: Any) -> Any:
    module, _, cls = load_catalogue()[name].plan.train.learner.path.partition(":")
    return getattr(importlib.import_module(module), cls)(context_of(suite, folder, max_steps=200), **settings)


def test_it_learns_all_kinds_of_targets_and_exports_them(name: str, tmp_path: Path) -> None:
    suite = mixed_suite(rows=900, missing=0.1)
    learner = made(name, suite, tmp_path)
    learner.train(STEPS[name])
    rows = suite.splits["test"]
    found = learner.predict(rows)
    known = suite.targets["late"][rows] >= 0
    assert ((found["late"] > 0.5) == suite.targets["late"][rows])[known].mean() > 0.85
    errors = found["price"][:, 0] - suite.targets["price"][rows][:, 0]
    assert np.nanvar(errors) < 0.3 * np.nanvar(suite.targets["price"][rows][:, 0])
    learner.export(tmp_path / "model")
    for task, values in graph_answers(tmp_path / "model", suite, rows).items():
        np.testing.assert_allclose(values, found[task], rtol=1e-4, atol=1e-4)
    assert learner.ledger().parameters_stored > 100


def test_answers_are_those_of_the_library_alone(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(400, 3)).astype(np.float32)
    suite = number_suite(x, (x[:, :1] + np.sin(3 * x[:, 1:2]) + 50.0) * 20)
    learner = made("xgboost", suite, tmp_path, patience=1000)
    learner.train(30)
    train, val = suite.splits["train"], suite.splits["val"]
    y = suite.targets["y0"][:, 0]
    params = {**learner._params, "objective": "reg:squarederror", "base_score": float(y[train].mean())}
    rounds = learner.boosters["y0"][0].best_rounds
    alone = xgboost.train(params, xgboost.DMatrix(x[train], y[train]), num_boost_round=rounds)
    np.testing.assert_allclose(learner.predict(val)["y0"][:, 0], alone.predict(xgboost.DMatrix(x[val])), rtol=1e-4)


def test_catboost_grown_in_steps_is_catboost_grown_at_once(tmp_path: Path) -> None:
    catboost = pytest.importorskip("catboost")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 3)).astype(np.float32)
    suite = number_suite(x, x[:, :1] + np.sin(3 * x[:, 1:2]) + 50.0)
    learner = made("catboost", suite, tmp_path, patience=1000)
    learner.train(4)
    train, val = suite.splits["train"], suite.splits["val"]
    iterations = 20 * learner.boosters["y0"][0].best_rounds
    alone = catboost.CatBoost({**learner._params, "loss_function": "RMSE", "iterations": iterations})
    alone.fit(catboost.Pool(x[train], suite.targets["y0"][train, 0]))
    np.testing.assert_allclose(learner.predict(val)["y0"][:, 0], alone.predict(x[val]), rtol=1e-6)


def test_slices_and_files_change_nothing(name: str, tmp_path: Path) -> None:
    suite = mixed_suite(rows=300)
    whole, part, last = (made(name, suite, tmp_path) for _ in range(3))
    whole.train(4)
    part.train(2)
    part.save(tmp_path / "a")
    last.load(tmp_path / "a")
    last.train(4)
    for task, values in whole.predict(suite.splits["test"]).items():
        np.testing.assert_array_equal(values, last.predict(suite.splits["test"])[task])


def test_it_stops_when_more_does_not_help(name: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    learner = made(name, number_suite(draw.normal(size=(100, 2)), draw.normal(size=(100, 1))), tmp_path, patience=2)
    learner.train(200)
    assert learner.step < 200
    assert not learner.still_improving


def test_targets_and_columns_without_difference_get_constant_answers(name: str, tmp_path: Path) -> None:
    suite = mixed_suite(rows=200, missing=0.0)
    train = suite.splits["train"]
    targets = {key: np.array(values) for key, values in suite.targets.items()}
    targets["late"][train], targets["kind"][train] = 1, 2
    targets["price"][train, 0] = 7.0
    alike = dataclasses.replace(suite, targets=targets)
    learner = made(name, alike, tmp_path)
    learner.train(2)
    found = learner.predict(suite.splits["test"])
    assert found["late"].min() > 0.9
    assert (found["kind"].argmax(axis=1) == 2).all()
    np.testing.assert_allclose(found["price"][:, 0], 7.0, rtol=1e-4)
    learner.export(tmp_path / "model")
    flat = dataclasses.replace(suite, inputs={key: np.zeros_like(values) for key, values in suite.inputs.items()})
    learner = made(name, flat, tmp_path)
    learner.train(2)
    assert np.ptp(learner.predict(suite.splits["test"])["late"]) < 1e-6


def test_classes_without_a_training_row_stay_possible(name: str, tmp_path: Path) -> None:
    suite = mixed_suite(rows=240, missing=0.0)
    targets = {key: np.array(values) for key, values in suite.targets.items()}
    targets["kind"][suite.splits["train"]] = np.minimum(targets["kind"][suite.splits["train"]], 2)
    learner = made(name, dataclasses.replace(suite, targets=targets), tmp_path)
    learner.train(3)
    found = learner.predict(suite.splits["test"])["kind"]
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)
    assert found[:, 3].max() < 0.05
    learner.export(tmp_path / "model")


def test_other_data_than_tables_are_refused(name: str, tmp_path: Path) -> None:
    from graftwork.core.input_spec import image_input

    suite = dataclasses.replace(mixed_suite(), input_specs=image_input(4))
    with pytest.raises(DataError, match="needs a table"):
        made(name, suite, tmp_path)


def test_without_their_packages_no_race_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "has", lambda package: package not in STEPS and has(package))
    for names in (None, ["all"]):
        assert not set(STEPS) & {plan.name for plan in portfolio.portfolio(["table"], 3, names)}
    with pytest.raises(ConfigError, match=r'.catboost. needs catboost: pip install "graftwork\[boosters\]"'):
        portfolio.portfolio(["table"], 3, ["+catboost"])
    monkeypatch.setattr(portfolio, "has", lambda package: True)
    assert set(STEPS) < {plan.name for plan in portfolio.portfolio(["table"], 1)}


def test_needs_of_a_plan_file_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    plan = '[[plans]]\nname = "mine"\ntitle = "t"\nrole = "joint"\nmodalities = ["table"]\n'
    file.write_text(plan + 'needs = { no_such_package = "mine" }\n')
    assert read_plan_file(file)[0].missing == 'needs no_such_package: pip install "graftwork[mine]"'
    file.write_text(plan + 'needs = ["catboost"]\n')
    with pytest.raises(ConfigError, match="`needs` must be a table of packages"):
        read_plan_file(file)
