"""Linear models and trees on n-grams of texts; what every learner must do is in the contract tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.core.input_spec import image_input, text_input
from graftwork.core.optional import has
from graftwork.data.reading.ingest import open_suite
from graftwork.data.suite import Suite
from graftwork.domains.text.telling_terms import TellingTerms
from graftwork.domains.text.term_weights import TermWeights
from graftwork.domains.text.tfidf_lightgbm import TfidfLightGBMLearner
from graftwork.domains.text.tfidf_linear import TfidfLinearLearner
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.workflows.portfolio import load_catalogue, portfolio

FILL = ["the", "of", "and", "to"]
Make = Callable[[LearnerContext], Learner]
MAKERS: dict[str, Make] = {"tfidf-linear": TfidfLinearLearner, "tfidf-lightgbm": TfidfLightGBMLearner}


def text_frame(rows: int = 400, words: int = 40, seed: int = 0) -> pd.DataFrame:
    """Long texts in which the words red and old say what the topic and the price are; a column says the rest of the price."""
    draw = np.random.default_rng(seed)
    red, old, size = draw.integers(0, 2, rows), draw.integers(0, 2, rows), draw.normal(size=rows).round(3)
    texts = []
    for row in range(rows):
        text = list(draw.choice(FILL, words))
        # Far behind, so that a reader of the beginning sees nothing.
        text += ["red"] * red[row] + ["very", "old"] * old[row] + list(draw.choice(FILL, 3))
        texts.append(" ".join(text))
    return pd.DataFrame(
        {
            "body": texts,
            "size": size,
            "topic": np.where(red, "warm", "cold"),
            "price": np.round(5.0 * old + 2.0 * size + 0.05 * draw.normal(size=rows), 3),
        }
    )


def context_of(suite: Suite, name: str, folder: Path, max_steps: int = 60) -> LearnerContext:
    return LearnerContext(suite=suite, plan=load_catalogue()[name].plan, seed=0, max_steps=max_steps, cache=folder)


@pytest.mark.parametrize("name", MAKERS)
def test_words_at_the_end_of_long_texts_and_columns_beside_them_are_learned(name: str, tmp_path: Path) -> None:
    if name == "tfidf-lightgbm" and not has("lightgbm"):
        pytest.skip("needs lightgbm")
    suite = open_suite(text_frame(words=300), targets="topic,price", text="body")
    assert suite.kinds == ("table", "text")
    learner = MAKERS[name](context_of(suite, name, tmp_path))
    rows = suite.splits["test"]
    before = learner.predict(rows)
    learner.train(60)
    found = learner.predict(rows)
    right = (found["topic"] > 0.5) == (suite.targets["topic"][rows] == 1)
    assert right.mean() > 0.97
    price = suite.targets["price"][rows].reshape(-1)
    spread = float(price.std())
    assert np.sqrt(np.mean((found["price"].reshape(-1) - price) ** 2)) < 0.5 * spread
    assert np.sqrt(np.mean((before["price"].reshape(-1) - price) ** 2)) > 0.9 * spread
    if has("onnxruntime"):
        learner.export(tmp_path / "model")  # the graph is checked against the predictions
        assert {"model.onnx", "config.json", "model.safetensors"} <= {file.name for file in (tmp_path / "model").iterdir()}


@pytest.mark.parametrize("make", MAKERS.values())
def test_other_inputs_are_refused_by_name(make: Make, tmp_path: Path) -> None:
    frame = text_frame(60)
    table = open_suite(frame, targets="topic", ignore="body")
    with pytest.raises(DataError, match="needs a text.*the inputs: table"):
        make(context_of(table, "tfidf-linear", tmp_path))
    text = open_suite(frame, targets="topic", text="body", ignore="size,price")
    both = {**text_input(9, 4), **image_input(8)}
    pictures: dict[str, Any] = {**text.inputs, "image": np.zeros((len(text), 8, 8, 3), dtype=np.uint8)}
    mixed = Suite(name="mixed", tasks=text.tasks, inputs=pictures, targets=text.targets, splits=text.splits, input_specs=both)
    with pytest.raises(DataError, match=r"needs a text.*text \+ image"):
        make(context_of(mixed, "tfidf-linear", tmp_path))


def test_plans_of_texts_enter_where_there_is_a_text() -> None:
    for kinds, wanted in ((["text"], True), (["table", "text"], True), (["table"], False), (["image", "text"], False)):
        names = {plan.name for plan in portfolio(kinds, 2)}
        assert ({"tfidf-linear", "tfidf-lightgbm"} <= names) is wanted, kinds
        assert bool({"tfidf-linear", "tfidf-lightgbm"} & names) is wanted, kinds


def test_weights_are_those_of_scikit_learn(tmp_path: Path) -> None:
    extraction = pytest.importorskip("sklearn.feature_extraction.text")
    suite = open_suite(text_frame(80), targets="topic", text="body", ignore="size,price")
    terms = TermWeights.learn(suite, "tokens", most=30)
    rows = suite.splits["train"]
    found = terms.matrix(suite.inputs, rows).toarray()
    named = [" ".join(map(str, item)) for part in terms.vocabulary.tokens() for item in part.tolist()]
    texts = [" ".join(str(token) for token in row if token) for row in suite.inputs["tokens"][rows].tolist()]
    peer = extraction.TfidfVectorizer(vocabulary=named, ngram_range=(1, 3), token_pattern=r"\d+", sublinear_tf=True)
    np.testing.assert_allclose(found, peer.fit_transform(texts).toarray(), atol=1e-12)


def test_trees_get_the_words_that_tell_most(tmp_path: Path) -> None:
    from graftwork.domains.tabular.label_blocks import label_blocks

    suite = open_suite(text_frame(300), targets="topic,price", text="body")
    terms = TellingTerms.learn(suite, "tokens", label_blocks(suite, "test"), most=4)
    assert terms.width == 4 + 6
    vocabulary = suite.input_specs["text"].encoder["tokenizer"]["model"]["vocab"]
    chosen = {int(token) for part in terms.vocabulary.tokens() for token in part.reshape(-1)}
    assert {vocabulary["red"], vocabulary["old"]} <= chosen
    counts = terms.matrix(suite.inputs, np.arange(len(suite)))
    assert (counts == np.round(counts)).all()
    assert (counts[:, 4] == (suite.inputs["tokens"] > 0).sum(axis=1)).all()


def test_the_number_of_terms_follows_the_number_of_classes(tmp_path: Path) -> None:
    frame = text_frame(400)
    suite = open_suite(frame, targets="topic", text="body", ignore="size,price")
    learner = TfidfLinearLearner(context_of(suite, "tfidf-linear", tmp_path), most_terms=7)
    learner.train(1)
    assert len(TermWeights.of_state("tokens", learner._state, "text_0_")) == 7
