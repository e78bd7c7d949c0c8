from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from graftwork.core.errors import DataError
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.text import TextEncoder, join_texts
from graftwork.data.reading.ingest import open_suite

TEXTS = ["The quick brown fox", "the lazy dog sleeps", "quick dogs and lazy foxes", "a fox is a fox", ""] * 20


def test_tokens() -> None:
    encoder = TextEncoder.fit(TEXTS)
    tokens = encoder.transform(["The fox", "the FOX", "fox", "", "\U0001f98a"])["tokens"]
    assert tokens.shape == (5, 64)
    assert tokens.dtype == np.int64
    assert tokens[0].tolist() == tokens[1].tolist(), "case does not count"
    assert tokens[2, 0] == tokens[0, 1]
    assert (tokens[2, 1:] == 0).all(), "0 is padding"
    assert (tokens[3] == 0).all()
    assert tokens[4, 0] == 1, "1 is unknown"
    assert encoder.sizes() == {"vocabulary_size": encoder.vocabulary_size, "max_length": 64}
    assert tokens.max() < encoder.vocabulary_size


def test_training_repeats() -> None:
    texts = [
        " ".join(np.random.default_rng(seed).choice(["alpha", "beta", "gammas", "gamma", "delta", "betas"], 30))
        for seed in range(300)
    ]
    states = [json.dumps(TextEncoder.fit(texts).state(), sort_keys=True) for _ in range(3)]
    assert len(set(states)) == 1


def test_length_follows_the_texts_and_long_ones_are_cut() -> None:
    assert TextEncoder.fit(["word " * 300] * 5).max_length == 300
    assert TextEncoder.fit(["word " * 3000] * 5).max_length == 1024
    assert TextEncoder.fit(["word " * 90] * 5).max_length == 90
    encoder = TextEncoder.fit(["word " * 90] * 5, max_length=8)
    assert (encoder.transform(["word " * 90])["tokens"] > 0).sum() == 8


def test_one_text_of_twenty_may_be_longer_and_all_cut_ones_are_counted() -> None:
    texts = ["word " * 100] * 99 + ["word " * 500]
    encoder = TextEncoder.fit(texts)
    assert encoder.max_length == 100
    arrays, cut = encoder.transform_counted(texts)
    assert cut == 1
    assert list(arrays) == ["tokens"]


def test_many_texts_are_cut_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.data.encoders import text

    monkeypatch.setattr(text, "_MOST_CELLS", 10_000)
    assert TextEncoder.fit(["word " * 300] * 100).max_length == 100
    assert TextEncoder.fit(["word " * 300] * 1000).max_length == 64


def test_parts_are_encoded_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.data.encoders import text

    encoder = TextEncoder.fit(TEXTS)
    whole = encoder.transform(TEXTS)["tokens"]
    monkeypatch.setattr(text, "_BATCH", 3)
    np.testing.assert_array_equal(encoder.transform(TEXTS)["tokens"], whole)
    assert TextEncoder.fit(TEXTS).max_length == encoder.max_length


def test_a_suite_says_how_many_texts_are_cut() -> None:
    frame = pd.DataFrame({"body": ["word " * 300] * 97 + ["word " * 900] * 3, "y": np.arange(100) % 2})
    suite = open_suite(frame, targets="y", text="body")
    assert suite.inputs["tokens"].shape[1] == 300
    assert "3 of 100 texts are cut after 300 tokens: what follows is not read." in suite.notes
    assert any("untrained networks the first 256, pretrained ones the first 128" in note for note in suite.notes)


def test_a_shortened_encoder_is_one_of_that_length() -> None:
    encoder = TextEncoder.fit(["word " * 90] * 5)
    expected = TextEncoder(encoder.tokenizer, 7)
    encoder.shorten(7)
    texts = ["word " * 90, "word", ""]
    np.testing.assert_array_equal(encoder.transform(texts)["tokens"], expected.transform(texts)["tokens"])
    assert encoder.state() == {**expected.state(), "columns": []}
    for length in (8, 0):
        with pytest.raises(DataError, match=f"Of each text 7 tokens are kept, .* 1 to 7; got {length}"):
            encoder.shorten(length)


def test_state_and_mask() -> None:
    encoder = TextEncoder.fit(TEXTS, columns=["body"])
    state = json.loads(json.dumps(encoder.state()))
    frame = pd.DataFrame({"x": [1, 2], "body": ["a fox", None]})
    np.testing.assert_array_equal(
        encoder_from_state(state).transform(frame)["tokens"], encoder.transform(["a fox", ""])["tokens"]
    )
    both = encoder_from_state({**state, "inputs": {"token_ids": "ids", "attention_mask": "mask"}, "pad_id": 7}).transform(
        ["a fox"]
    )
    assert both["attention_mask"][0, :3].tolist() == [1, 1, 0]
    assert both["token_ids"][0, 2] == 7


def test_errors() -> None:
    encoder = TextEncoder.fit(TEXTS, columns=["body"])
    with pytest.raises(DataError, match="'body' is not a column of the table. Did you mean 'bodi'"):
        encoder.transform(pd.DataFrame({"bodi": ["a"]}))
    with pytest.raises(DataError, match="Give a list of texts.*got str"):
        encoder.transform("a single text")
    with pytest.raises(DataError, match="All texts of column body are empty"):
        TextEncoder.fit(["", " "], columns=["body"])


def test_several_columns_are_joined() -> None:
    frame = pd.DataFrame({"title": ["A", None], "body": ["b", "c"]})
    assert join_texts(frame, ["title", "body"]) == ["A\nb", "c"]


@pytest.mark.parametrize("tokenizer", [{}, {"version": "1.0", "model": 7}, {"version": "1.0", "model": {"type": "nobody"}}])
def test_a_damaged_tokenizer_is_refused(tokenizer: dict[str, object]) -> None:
    state = TextEncoder.fit(["a fox", "a dog"] * 3).state()
    with pytest.raises(DataError, match="The tokenizer cannot be read"):
        encoder_from_state({**state, "tokenizer": tokenizer})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        *(({"max_length": value}, "Texts cannot be read as .* tokens each") for value in (0, -5, 10**9)),
        *(({"pad_id": value}, "No token has the number") for value in (-1, 2**70)),
    ],
)
def test_lengths_and_paddings_that_no_text_can_have_are_refused(changed: dict[str, int], words: str) -> None:
    state = TextEncoder.fit(["a text", "another text"]).state()
    with pytest.raises(DataError, match=words):
        TextEncoder.from_state({**state, **changed})
