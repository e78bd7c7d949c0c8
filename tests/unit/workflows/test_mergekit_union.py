"""Vocabularies that are brought together: each row by the documented rules, token by token, and a folder that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from graftwork.core.errors import ConfigError, DataError
from graftwork.workflows.mergekit import merge_from_yaml

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
SPECIAL = ["<unk>", "<s>", "</s>"]
# In other orders, so that equal rows are other tokens.
WORDS = {"base": ["red", "green", "blue", "old"], "chat": ["blue", "red", "new"], "wide": ["green", "new", "far", "red"]}
ADDED = {"base": [], "chat": ["<|im_start|>"], "wide": ["<|im_start|>", "<tool>"]}
SPARE = {"base": 2, "chat": 0, "wide": 5}
"""Rows that no token has."""
TABLES = ("model.embed_tokens.weight", "lm_head.weight")


def make_tokenizer(name: str) -> Any:
    words = [*SPECIAL, *WORDS[name]]
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in [*SPECIAL, *ADDED[name]]])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def make_model(name: str, dtype: torch.dtype = torch.float32) -> Any:
    rows = len(SPECIAL) + len(WORDS[name]) + len(ADDED[name]) + SPARE[name]
    torch.manual_seed(len(name) + rows)
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=rows, bos_token_id=1, eos_token_id=2, **sizes)).to(
        dtype
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    for name in WORDS:
        make_model(name).save_pretrained(root / name)
        make_tokenizer(name).save_pretrained(root / name)
    return root


def vocabulary(name: str) -> dict[str, int]:
    return {word: row for row, word in enumerate([*SPECIAL, *WORDS[name], *ADDED[name]])}


def filled(tables: dict[str, np.ndarray], tokens: list[str], base: str = "", rules: Any = None) -> dict[str, np.ndarray]:
    """Return the table of each model for these tokens, row by row as mergekit documents it.

    Args:
        tables: The table of each model.
        tokens: Tokens of the result, by their ids.
        base: The base.
        rules: For some tokens: model and its token (None for zeros), and whether it is forced.
    """
    own = {name: vocabulary(name) for name in tables}
    found = {}
    for name in tables:
        rows = []
        for token in tokens:
            rule = (rules or {}).get(token)
            holders = [model for model in tables if token in own[model]]
            if token in own[name] and not (rule and rule[1]):
                rows.append(tables[name][own[name][token]])
            elif rule:
                rows.append(np.zeros(8) if rule[0] is None else tables[rule[0][0]][own[rule[0][0]][rule[0][1]]])
            elif base in holders:
                rows.append(tables[base][own[base][token]])
            else:
                rows.append(np.mean([tables[model][own[model][token]] for model in holders], axis=0) if holders else np.zeros(8))
        found[name] = np.stack(rows).astype(np.float64)
    return found


def run(world: Path, text: str, out: Path) -> Any:
    path = world / "merge.yml"
    path.write_text(text)
    return merge_from_yaml(path, out, hashes=False)


LINEAR = """merge_method: linear
base_model: base
models:
  - {model: base, parameters: {weight: 1}}
  - {model: chat, parameters: {weight: 2}}
  - {model: wide, parameters: {weight: 5}}
"""
UNION = [*SPECIAL, "red", "green", "blue", "old", "new", "far", "<|im_start|>", "<tool>"]


def tables_of(world: Path, name: str, models: tuple[str, ...] = ("base", "chat", "wide")) -> dict[str, np.ndarray]:
    return {model: load_file(world / model / "model.safetensors")[name] for model in models}


def blend(tables: dict[str, np.ndarray]) -> np.ndarray:
    return (tables["base"] + 2 * tables["chat"] + 5 * tables["wide"]) / 8  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "setting", ["tokenizer_source: union", "tokenizer: {source: union}", "tokenizer: {pad_to_multiple_of: 1}"]
)
def test_a_union_has_the_tokens_of_all(setting: str, world: Path, tmp_path: Path) -> None:
    report = run(world, LINEAR + setting, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in TABLES:
        expected = blend(filled(tables_of(world, name), UNION, "base"))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    plain = "model.layers.1.mlp.up_proj.weight"
    np.testing.assert_allclose(found[plain], blend(tables_of(world, plain)), rtol=1e-5, atol=1e-6)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == len(UNION) == len(tokenizer)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (1, 2)
    assert tokenizer.get_vocab() == {token: row for row, token in enumerate(UNION)}
    words = ["red", "far", "<|im_start|>", "new", "<tool>"]
    assert tokenizer(" ".join(words))["input_ids"] == [UNION.index(word) for word in words]
    assert tokenizer.decode([UNION.index("<tool>"), 3], skip_special_tokens=True) == "red"
    assert torch.isfinite(model(torch.tensor([[3, 9, 10]])).logits).all()
    assert [note for note in report.notes if "tokens" in note] == [
        "2 tokens that the tokenizer of base does not make are added to it (new, far); text is split at them before its own rules apply."
    ]


def test_without_a_base_the_first_model_begins_and_means_fill(world: Path, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [{model: wide}, {model: base}, {model: chat}]\nparameters: {weight: 1}\ntokenizer_source: union\n"
    run(world, text, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    tokens = [*SPECIAL, "green", "new", "far", "red", "<|im_start|>", "<tool>", "blue", "old"]
    for name in TABLES:
        expected = np.mean(list(filled(tables_of(world, name), tokens).values()), axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_rows_of_single_tokens_and_padding(world: Path, tmp_path: Path) -> None:
    text = """merge_method: task_arithmetic
base_model: base
models: [{model: chat}, {model: wide}]
parameters: {weight: [0.5, 0.7]}
tokenizer:
  source: union
  pad_to_multiple_of: 16
  tokens:
    new: {source: wide}
    red: {source: chat, force: true}
    far: {source: {kind: zero}}
    <|im_start|>: {source: {kind: model_token, model: wide, token: <tool>}, force: true}
    <fresh>: {source: {kind: model_token, model: chat, token_id: 3}}
    <empty>: {source: zero}
    <open>:
"""
    report = run(world, text, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    rules = {
        "new": (("wide", "new"), False),
        "red": (("chat", "red"), True),
        "far": (None, False),
        "<|im_start|>": (("wide", "<tool>"), True),
        "<fresh>": (("chat", "blue"), False),
        "<empty>": (None, False),
    }
    tokens = [*UNION, "<fresh>", "<empty>", "<open>"]
    for name in TABLES:
        padded = {}
        for model, table in filled(tables_of(world, name), tokens, "base", rules).items():
            padded[model] = np.concatenate([table, np.tile(table.mean(axis=0), (2, 1))])
        expected = padded["base"] + 0.5 * (padded["chat"] - padded["base"]) + 0.5 * (padded["wide"] - padded["base"])
        assert found[name].shape == (16, 8)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert any(
        "1 tokens are in none of the models that tables are made from; their rows are 0: <open>" in note for note in report.notes
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("red <open>far <fresh>")["input_ids"] == [tokens.index(word) for word in ("red", "<open>", "far", "<fresh>")]
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").vocab_size == 16


@pytest.mark.parametrize(("source", "named"), [("base", "base"), ("wide", "wide"), ("model:chat", "chat")])
def test_the_vocabulary_of_one_model(source: str, named: str, world: Path, tmp_path: Path) -> None:
    run(world, f"{LINEAR}tokenizer_source: {source}\n", tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name in TABLES:
        expected = blend(filled(tables_of(world, name), list(vocabulary(named)), "base"))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (world / named / "tokenizer.json").read_bytes()
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_special_tokens_get_the_ids_of_the_new_vocabulary(world: Path, tmp_path: Path) -> None:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"</s>": 0, "red": 1, "<end>": 2}, unk_token="</s>"))
    (tmp_path / "turned").mkdir()
    made.save(str(tmp_path / "turned" / "tokenizer.json"))
    (tmp_path / "turned" / "config.json").write_text(json.dumps({"bos_token_id": 2}))
    run(
        world,
        f"{LINEAR}tokenizer: {{source: {tmp_path / 'turned'}, tokens: {{<end>: {{source: base}}}}}}\n".replace(
            "source: base", "source: {kind: zero}"
        ),
        tmp_path / "out",
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"], config["vocab_size"]) == (0, 2, 3)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 0


def test_half_precision_and_layers_of_several_models(world: Path, tmp_path: Path) -> None:
    for name in ("base", "wide"):
        make_model(name, torch.bfloat16).save_pretrained(tmp_path / name)
        make_tokenizer(name).save_pretrained(tmp_path / name)
    text = """merge_method: passthrough
slices:
  - sources: [{model: base, layer_range: [0, 2]}]
  - sources: [{model: wide, layer_range: [1, 2]}]
tokenizer: {source: union}
"""
    path = tmp_path / "merge.yml"
    path.write_text(text)
    report = merge_from_yaml(path, tmp_path / "out", hashes=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 3
    state, base = model.state_dict(), transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict()
    # The table before the layers is that of the first slice alone, so tokens of the other model have no rows there.
    assert torch.equal(state[TABLES[0]][:7], base[TABLES[0]][:7])
    assert not state[TABLES[0]][7:].any()
    assert any("4 tokens are in none of the models that tables are made from" in note for note in report.notes)


def test_tokens_of_a_document_go_on(world: Path, tmp_path: Path) -> None:
    text = f"name: both\n{LINEAR}tokenizer_source: union\n---\nmerge_method: linear\nmodels: [{{model: both}}, {{model: chat}}]\nparameters: {{weight: 1}}\ntokenizer_source: base\n"
    run(world, text, tmp_path / "out")
    run(world, f"{LINEAR}tokenizer_source: union\n", tmp_path / "both")
    both, found = (load_file(tmp_path / name / "model.safetensors") for name in ("both", "out"))
    chat = vocabulary("chat")
    for name, table in tables_of(world, TABLES[0], ("chat",)).items():
        assert name == "chat"
        for row, token in enumerate(UNION):
            expected = (both[TABLES[0]][row] + table[chat[token]]) / 2 if token in chat else both[TABLES[0]][row]
            np.testing.assert_allclose(found[TABLES[0]][row], expected, rtol=1e-5, atol=1e-6, err_msg=token)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == {
        token: row for row, token in enumerate(UNION)
    }


def test_encoders_have_a_bias_for_each_token(tmp_path: Path) -> None:
    words = {"one": ["[UNK]", "[PAD]", "cat", "dog"], "two": ["[UNK]", "[PAD]", "dog", "cow", "cat"]}
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    for number, (name, vocabulary) in enumerate(words.items()):
        torch.manual_seed(number)
        # As many positions as tokens of the first model: their table stays as it is.
        config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=4, tie_word_embeddings=True, **sizes)
        model = transformers.BertForMaskedLM(config)
        torch.nn.init.normal_(model.cls.predictions.bias)
        model.save_pretrained(tmp_path / name)
        made = tokenizers.Tokenizer(
            tokenizers.models.WordPiece({word: row for row, word in enumerate(vocabulary)}, unk_token="[UNK]")
        )
        transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(
            tmp_path / name
        )
    path = tmp_path / "merge.yml"
    path.write_text(
        "merge_method: linear\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 1}\ntokenizer_source: union\n"
    )
    merge_from_yaml(path, tmp_path / "out", hashes=False)
    one, two, found = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two", "out"))
    for name in ("cls.predictions.bias", "bert.embeddings.word_embeddings.weight"):
        a, b = one[name].astype(np.float64), two[name].astype(np.float64)
        expected = np.stack([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[4]) / 2, (a[3] + b[2]) / 2, b[3]])
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
    name = "bert.embeddings.position_embeddings.weight"
    np.testing.assert_allclose(found[name], (one[name] + two[name]) / 2, rtol=1e-5, atol=1e-6)
    transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out")


def save_plain(folder: Path, tensors: dict[str, np.ndarray], words: list[str]) -> None:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="x"))
    made.save(str(folder / "tokenizer.json"))


TWO = "merge_method: linear\nmodels: [{model: one}, {model: two}]\nparameters: {weight: 1}\ntokenizer_source: union\n"


def test_vocabularies_of_equal_size_in_another_order(tmp_path: Path) -> None:
    """Tables are known by their names then; what has as many rows by chance stays as it is, and what may be a table is noted."""
    generator = np.random.default_rng(0)
    names = [
        "tok_embeddings.weight",
        "decoder.weight",
        "decoder.bias",
        "final_norm.weight",
        "mystery.weight",
        "layers.0.up.weight",
    ]
    both = []
    for name, words in (("one", ["x", "y", "z", "w"]), ("two", ["w", "z", "y", "x"])):
        shapes = {key: (4,) if key.endswith(("bias", "norm.weight")) else (4, 4) for key in names}
        both.append({key: generator.normal(size=shape).astype(np.float32) for key, shape in shapes.items()})
        save_plain(tmp_path / name, both[-1], words)
    (tmp_path / "merge.yml").write_text(TWO)
    report = merge_from_yaml(tmp_path / "merge.yml", tmp_path / "out", hashes=False)
    found = load_file(tmp_path / "out" / "model.safetensors")
    for number, key in enumerate(names):
        second = both[1][key][::-1] if number < 3 else both[1][key]
        np.testing.assert_allclose(found[key], (both[0][key] + second) / 2, rtol=1e-5, atol=1e-6, err_msg=key)
    assert any(note.startswith("mystery.weight has as many rows as there are tokens") for note in report.notes)


def test_spare_rows_of_one_model_go_where_the_others_have_none(tmp_path: Path) -> None:
    for name, rows in (("one", 2), ("two", 6)):
        table = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
        save_plain(tmp_path / name, {"wte.weight": table, "h.0.weight": table[:2], "lm_head.weight": table + 1}, ["x", "y"])
    text = "merge_method: passthrough\nslices:\n- sources: [{model: one, layer_range: [0, 1]}]\n- sources: [{model: two, layer_range: [0, 1]}]\n"
    (tmp_path / "merge.yml").write_text(text + "tokenizer_source: union\n")
    merge_from_yaml(tmp_path / "merge.yml", tmp_path / "out", hashes=False)
    found = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(found["lm_head.weight"], np.arange(8).reshape(2, 4) + 1)
    assert found["wte.weight"].shape == (2, 4)


def test_the_base_of_a_slice_fills(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    tables = {}
    for name, words in (("one", ["x", "y"]), ("two", ["x", "z"]), ("three", ["x", "y", "z"])):
        tables[name] = generator.normal(size=(len(words), 4)).astype(np.float32)
        save_plain(tmp_path / name, {"wte.weight": tables[name], "h.0.weight": np.ones((2, 2), np.float32)}, words)
    sources = ", ".join(f"{{model: {name}, layer_range: [0, 1], parameters: {{weight: 1}}}}" for name in tables)
    text = f"merge_method: task_arithmetic\nslices: [{{base_model: three, sources: [{sources}]}}]\ntokenizer_source: union\n"
    (tmp_path / "merge.yml").write_text(text)
    merge_from_yaml(tmp_path / "merge.yml", tmp_path / "out", hashes=False)
    found = load_file(tmp_path / "out" / "model.safetensors")["wte.weight"]
    one, two, base = (tables[name] for name in tables)
    # What a model lacks is that of the base, so that it changes nothing there.
    expected = np.stack([base[0] + (one[0] - base[0]) + (two[0] - base[0]), one[1], two[1]])
    tokens = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    order = {token["content"]: token["id"] for token in tokens["added_tokens"]} | tokens["model"]["vocab"]
    np.testing.assert_allclose(found[[order["x"], order["y"], order["z"]]], expected, rtol=1e-5, atol=1e-6)


def test_equal_vocabularies_stay_as_they_are(world: Path, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [{model: wide}, {model: wide}]\nparameters: {weight: 1}\ntokenizer_source: union\n"
    run(world, text.replace("{model: wide}, {model: wide}", "{model: wide}"), tmp_path / "out")
    found, before = load_file(tmp_path / "out" / "model.safetensors"), load_file(world / "wide" / "model.safetensors")
    for name in TABLES:
        np.testing.assert_array_equal(found[name], before[name])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tokenizer: {tokens: {<x>: {source: far}}}", "line 7, tokenizer.tokens.<x>.source: 'far' is none of the models that are merged"),
        ("tokenizer: {tokens: {<x>: {source: base}}}", "line 7, tokenizer.tokens.<x>: there is no token '<x>' in base, whose tables have 9 rows"),
        (
            "tokenizer: {tokens: {<x>: {source: {kind: model_token, model: base, token_id: 9}}}}",
            "line 7, tokenizer.tokens.<x>: the row 9 is not there in base, whose tables have 9 rows",
        ),
        ("tokenizer: {tokens: {<x>: {source: {kind: model_token, model: base}}}}", "needs a token, a text, or a token_id"),
        ("tokenizer: {tokens: {<x>: {source: {kind: mean}}}}", "source.kind: must be zero or model_token; got 'mean'"),
        ("tokenizer: {tokens: {<x>: {force: true}}}", "tokenizer.tokens.<x>.force: needs a source"),
        ("tokenizer: {tokens: {<x>: base}}", "tokenizer.tokens.<x>: must be a mapping with source and perhaps force; got 'base'"),
        ("tokenizer: {pad_to_multiple_of: 0}", "line 7, tokenizer.pad_to_multiple_of: must be a whole number, at least 1; got 0"),
        ("tokenizer: {sorce: base}", "line 7, tokenizer.sorce: unknown key. Did you mean 'source'"),
        ("tokenizer_source: nowhere", "line 7: there is no model at nowhere"),
        ("tokenizer_source: union\ntokenizer: {source: base}", "line 8, tokenizer: must be a mapping, and stands in place of tokenizer_source"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_at_its_line(setting: str, message: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        run(world, LINEAR + setting, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_slow_and_damaged_tokenizers_are_named(world: Path, tmp_path: Path) -> None:
    for name in ("slow", "broken", "none"):
        make_model("chat").save_pretrained(tmp_path / name)
    (tmp_path / "slow" / "tokenizer.model").write_bytes(b"x")
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    text = f"merge_method: linear\nmodels:\n- model: base\n- model: {tmp_path}/NAME\nparameters: {{weight: 1}}\ntokenizer_source: union\n"
    with pytest.raises(ConfigError, match="line 6, tokenizer_source: .*slow has tokenizer.model but no tokenizer.json"):
        run(world, text.replace("NAME", "slow"), tmp_path / "out")
    with pytest.raises(ConfigError, match="line 6, tokenizer_source: tokenizer.json of .*broken cannot be read"):
        run(world, text.replace("NAME", "broken"), tmp_path / "out")
    report = run(world, text.replace("NAME", "none"), tmp_path / "out.safetensors")
    assert any("none has no tokenizer; its tokens are taken for those of base" in note for note in report.notes)
    assert any("the tokenizer that belongs to them is not written" in note for note in report.notes)
