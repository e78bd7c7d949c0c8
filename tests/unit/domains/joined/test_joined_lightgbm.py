"""Trees on columns and on what a frozen backbone says; what every learner must do is in the contract tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite
from graftwork.domains.joined.feature_scores import FeatureScores
from graftwork.domains.joined.joined_lightgbm import JoinedLightGBMLearner
from graftwork.domains.tabular.label_blocks import label_blocks
from graftwork.interfaces.learner import LearnerContext
from graftwork.workflows.portfolio import load_catalogue, portfolio

pytestmark = pytest.mark.skipif(not has("lightgbm"), reason="needs lightgbm")


def mixed_suite(folder: Path, rows: int = 200) -> Suite:
    """Squares that are red or blue, a number and a word; the price depends on colour and number together."""
    draw, made = np.random.default_rng(0), []
    for number in range(rows):
        is_red, size, kind = bool(draw.integers(2)), draw.normal(), str(draw.choice(list("abc")))
        picture = np.full((40, 40, 3), 200, dtype=np.uint8)
        picture[10:30, 10:30] = (255, 0, 0) if is_red else (0, 0, 255)
        noisy = np.clip(picture + draw.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.png")
        price = 3.0 * is_red * (size > 0) + size + (kind == "a") + 0.1 * draw.normal()
        made.append({"file": f"{number}.png", "size": size, "kind": kind, "price": price, "colour": "red" if is_red else "blue"})
    pd.DataFrame(made).to_csv(folder / "table.csv", index=False)
    return open_suite(folder / "table.csv", targets="price,colour", image_column="file")


def learner_of(suite: Suite, folder: Path, **fields: Any) -> JoinedLightGBMLearner:
    plan = replace(load_catalogue()["joined-lightgbm"].plan, source="scratch")  # an untrained trunk will do
    return JoinedLightGBMLearner(LearnerContext(suite=suite, plan=plan, seed=0, max_steps=150, cache=folder / "cache", **fields))


def test_what_picture_and_columns_say_together_is_learned_and_exported(tmp_path: Path) -> None:
    suite = mixed_suite(tmp_path)
    assert suite.kinds == ("table", "image")
    learner = learner_of(suite, tmp_path)
    learner.train(150)
    rows = suite.splits["test"]
    found, price = learner.predict(rows), suite.targets["price"][suite.splits["test"]].reshape(-1)
    assert ((found["colour"] > 0.5) == (suite.targets["colour"][rows] == 1)).mean() > 0.95
    # Neither colour nor number alone tells more than 65 % of the variance.
    assert 1 - np.mean((found["price"].reshape(-1) - price) ** 2) / price.var() > 0.8
    costs = learner.ledger()
    assert costs.parameters_stored > sum(parameter.numel() for parameter in learner._network.parameters()) > 0
    assert costs.latency_ms_batch1 > 0  # that of the backbone, which rows with stored features do not show
    again = learner.predict(rows, inputs=suite.inputs)
    np.testing.assert_allclose(again["price"], found["price"], atol=1e-4)
    pytest.importorskip("onnxruntime")
    learner.export(tmp_path / "model")  # the graph is checked against the predictions
    assert {"model.onnx", "config.json", "model.safetensors"} <= {file.name for file in (tmp_path / "model").iterdir()}


def test_columns_alone_are_learned_without_a_backbone(tmp_path: Path) -> None:
    suite = mixed_suite(tmp_path, 120)
    plan = load_catalogue()["columns-lightgbm"].plan
    learner = JoinedLightGBMLearner(LearnerContext(suite=suite, plan=plan, seed=0, max_steps=60, cache=tmp_path / "cache"))
    learner.train(60)
    found, price = (
        learner.predict(suite.splits["test"])["price"].reshape(-1),
        suite.targets["price"][suite.splits["test"]].reshape(-1),
    )
    assert 0.3 < 1 - np.mean((found - price) ** 2) / price.var() < 0.9
    assert not (tmp_path / "cache").exists()
    onnx = pytest.importorskip("onnx")
    learner.export(tmp_path / "model")
    assert {item.name for item in onnx.load(str(tmp_path / "model" / "model.onnx")).graph.input} == {"numeric", "categorical"}


def test_training_rows_are_scored_by_models_that_did_not_learn_from_them() -> None:
    draw, rows = np.random.default_rng(1), 120
    features = draw.normal(size=(rows, 60)).astype(np.float32)
    frame = pd.DataFrame({"x": draw.normal(size=rows), "noise": draw.normal(size=rows), "flag": draw.integers(0, 2, rows)})
    suite = open_suite(frame, targets="noise,flag", task_kinds={"flag": "binary"})
    scores, found = FeatureScores.learn(suite, features, label_blocks(suite, "test"), seed=0)
    train = suite.splits["train"]
    noise = suite.targets["noise"][train].reshape(-1)
    inside = np.corrcoef(scores.of(features)[train][:, 0], noise)[0, 1]
    honest = np.corrcoef(found[train][:, 0], noise)[0, 1]
    # Features of nothing: a model that saw the labels seems to know them.
    assert inside > honest + 0.2
    others = np.setdiff1d(np.arange(rows), train)
    np.testing.assert_array_equal(found[others], scores.of(features)[others])


def test_scores_are_those_of_scikit_learn() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    draw, rows = np.random.default_rng(2), 150
    features = draw.normal(size=(rows, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32) + 3.0
    price = features @ draw.normal(size=8) + draw.normal(size=rows)
    suite = open_suite(pd.DataFrame({"x": draw.normal(size=rows), "price": price}), targets="price")
    block = label_blocks(suite, "test")
    scores, _ = FeatureScores.learn(suite, features, block, seed=0)
    train = suite.splits["train"]
    x = (features[train] - features[train].mean(axis=0)) / (features[train].std(axis=0) * np.sqrt(8))
    peers = [linear.Ridge(alpha=strength).fit(x, block[0].targets(train)[:, 0]) for strength in (0.001, 0.003, 0.01, 0.03, 0.1)]
    found = scores.of(features)[train][:, 0]
    assert min(np.abs(peer.predict(x) - found).max() for peer in peers) < 1e-3


def test_a_suite_without_text_and_picture_is_refused(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.integers(0, 9, 60), "y": draw.normal(size=60)})
    with pytest.raises(ConfigError, match="no input of the suite .* has a fixed backbone"):
        learner_of(open_suite(frame, targets="y"), tmp_path)


def test_the_plan_enters_where_columns_meet_a_text_or_a_picture() -> None:
    for kinds in (["table", "image"], ["table", "text"], ["table", "text", "image"], ["text", "image"]):
        assert "joined-lightgbm" in {plan.name for plan in portfolio(kinds, 2)}, kinds
    for kinds in (["table"], ["text"], ["image"]):
        assert "joined-lightgbm" not in {plan.name for plan in portfolio(kinds, 2)}, kinds


def test_a_table_of_words_alone(tmp_path: Path) -> None:
    mixed_suite(tmp_path, 120)
    suite = open_suite(tmp_path / "table.csv", targets="price", image_column="file", ignore="size,colour")
    assert "numeric" not in suite.inputs or not suite.inputs["numeric"].shape[1]
    plan = load_catalogue()["columns-lightgbm"].plan
    learner = JoinedLightGBMLearner(LearnerContext(suite=suite, plan=plan, seed=0, max_steps=20, cache=tmp_path / "cache"))
    learner.train(20)
    assert np.isfinite(learner.predict(suite.splits["test"])["price"]).all()
    pytest.importorskip("onnxruntime")
    learner.export(tmp_path / "model")
