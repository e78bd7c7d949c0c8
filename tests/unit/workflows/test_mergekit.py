"""YAML files of mergekit are merged as mergekit does: numbers of mergekit 0.1.5 on models that a formula gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graftwork.cli.main import main
from graftwork.core.errors import ConfigError, DataError
from graftwork.core.seeds import Seeds
from graftwork.core.tensor_files import open_tensors
from graftwork.workflows.mergekit import merge_from_yaml, read_merge_documents
from graftwork.workflows.mergekit.resolve import value_of
from graftwork.workflows.mergekit.tensors import layer_of

# For each file two numbers of every tensor: its product with cos(0), cos(1), ... and its sum of squares. Random masks were drawn
# by comparing `uniform` with the probabilities, there and here.
KNOWN: dict[str, Any] = json.loads(Path(__file__).with_name("mergekit_numbers.json").read_text(encoding="utf-8"))
SHAPES = {"model.embed_tokens.weight": (6, 4), "model.norm.weight": (4,), "lm_head.weight": (6, 4)}
for number in range(3):
    prefix = f"model.layers.{number}."
    SHAPES |= {prefix + "input_layernorm.weight": (4,), prefix + "post_attention_layernorm.weight": (4,)}
    SHAPES |= {f"{prefix}self_attn.{kind}_proj.weight": (4, 4) for kind in "qkvo"}
    SHAPES |= {f"{prefix}mlp.{kind}_proj.weight": shape for kind, shape in (("gate", (8, 4)), ("up", (8, 4)), ("down", (4, 8)))}


def values(model: int, place: int, shape: tuple[int, ...]) -> np.ndarray:
    index = np.arange(int(np.prod(shape)), dtype=np.float64) + 1.0
    change = 0.3 * np.sin(2.3 * index * (model + 0.7) + 5.0 * place) if model else 0.0
    return (np.sin(1.7 * index + 13.0 * place) + change).reshape(shape).astype(np.float32)


def uniform(shape: tuple[int, ...]) -> np.ndarray:
    index = np.arange(int(np.prod(shape))) + 1.0
    return np.modf(np.abs(np.sin(12.9898 * index) * 43.7585))[0].reshape(shape).astype(np.float32)


class FixedNumbers:
    def random(self, shape: tuple[int, ...], dtype: str = "") -> np.ndarray:
        return uniform(shape)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for number, name in enumerate(("base", "a", "b", "c")):
        (root / name).mkdir()
        tensors = {key: values(number, place, shape) for place, (key, shape) in enumerate(sorted(SHAPES.items()))}
        save_file(tensors, root / name / "model.safetensors", metadata={"format": "pt"})
        (root / name / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 3, "dtype": "float32"}))
        (root / name / "tokenizer.json").write_text("{}")
    return root


def write(models: Path, text: str, name: str = "merge.yml") -> Path:
    path = models / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_the_numbers_of_mergekit(name: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Seeds, "numpy", lambda self, stream: FixedNumbers())
    report = merge_from_yaml(write(models, KNOWN[name]["yaml"]), tmp_path / "out", hashes=False)
    assert not report.not_finite
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert set(merged) == set(KNOWN[name]["numbers"])
    for key, (product, squares) in KNOWN[name]["numbers"].items():
        flat = merged[key].astype(np.float64).reshape(-1)
        assert flat @ np.cos(np.arange(flat.size)) == pytest.approx(product, rel=2e-5, abs=2e-5), key
        assert flat @ flat == pytest.approx(squares, rel=2e-5, abs=2e-5), key


def test_a_stack_is_a_model_folder_with_its_number_of_layers(models: Path, tmp_path: Path) -> None:
    path = write(models, KNOWN["stack"]["yaml"].replace("dtype: float32", "dtype: bfloat16, tokenizer_source: union"))
    assert main(["merge", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {"model_type": "llama", "num_hidden_layers": 4, "dtype": "bfloat16"}
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert (tmp_path / "out" / "mergekit_config.yml").read_text() == path.read_text()
    found = open_tensors(tmp_path / "out")
    assert {found.dtype_name(name) for name in found} == {"BF16"}
    assert json.loads(found.metadata["models"]) == ["a", "b"]
    assert set(json.loads(found.metadata["inputs_sha256"]).values()) != {"0" * 64}
    # A merge of before is replaced, another folder is not.
    assert main(["merge", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    with pytest.raises(ConfigError, match="not empty and is not a merge of graftwork"):
        merge_from_yaml(path, models)


def test_every_fault_is_listed_with_its_line_before_a_model_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "merge.yml"
    path.write_text(
        """merge_method: dare_tis
base_model: nowhere
models:
  - model: nowhere/a
    parameters: {weight: much}
  - modl: nowhere/b
dtype: int4
tokenizer:
  source: base
  tokens: {"<x>": {source: a}}
chat_template: alpaca
paramters: {}
"""
    )
    with pytest.raises(ConfigError) as caught:
        read_merge_documents(path)
    listed = "\n".join(caught.value.problems)
    assert "line 1, merge_method: unknown method 'dare_tis'. Did you mean 'dare_ties'?" in listed
    assert "line 6, models[1]: must be a mapping with the key model" in listed
    assert "line 7, dtype: must be one of float32, float16, bfloat16, float64; got 'int4'" in listed
    assert "line 10, tokenizer.tokens.<x>.source: 'a' is none of the models that are merged" in listed
    assert "line 11, chat_template: must be auto (the one that most models have), chatml, or the template itself" in listed
    assert "line 12, paramters: unknown key. Did you mean 'parameters'?" in listed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{merge_method: scc, models: [{model: a}]}", "line 1, merge_method: unknown method 'scc'"),
        ("{merge_method: sce, models: [{model: a}]}", "sce needs base_model"),
        (
            "merge_method: linear\nmodels:\n- model: a\n  parameters:\n    weight: much\n",
            r"line 5, models\[0\].parameters.weight: must be a number; got 'much'",
        ),
        ("{merge_method: linear, models: [{model: a}, {model: b}]}", "the parameter 'weight' is missing for the tensor"),
        ("merge_method: linear\nmodels:\n- model: org/name\n", "line 3: there is no model at org/name.*not downloaded"),
        ("{merge_method: ties, models: [{model: a, parameters: {weight: 1}}]}", "ties needs base_model"),
        (
            "{merge_method: slerp, base_model: a, models: [{model: a}, {model: b}, {model: c}], parameters: {t: 0.5}}",
            "slerp merges 2 models; got 3",
        ),
        ("{merge_method: slerp, base_model: a, models: [{model: a}, {model: b}], parameters: {t: 2}}", "`t` must be from 0"),
        ("{merge_method: passthrough, slices: [{sources: [{model: a, layer_range: [0, 9]}]}]}", "it has 3 layers"),
        ("{merge_method: passthrough, slices: [{sources: [{model: a, layer_range: [3]}]}]}", "must be two whole numbers"),
        ("{merge_method: linear}", "exactly one of models and slices"),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: wide, parameters: {weight: 1}}]}",
            r"their vocabularies differ",
        ),
        (
            "{merge_method: linear, models: [{model: a, parameters: {weight: 1}}, {model: a+lora}]}",
            "line 1: there is no adapter at lora, .* what stands before it is there",
        ),
    ],
)
def test_what_cannot_be_merged_is_said(text: str, message: str, models: Path, tmp_path: Path) -> None:
    if "wide" in text and not (models / "wide").exists():
        (models / "wide").mkdir()
        tensors = {key: values(1, place, shape) for place, (key, shape) in enumerate(sorted(SHAPES.items()))}
        tensors["lm_head.weight"] = np.zeros((7, 4), np.float32)
        save_file(tensors, models / "wide" / "model.safetensors")
    with pytest.raises((ConfigError, DataError), match=message):
        merge_from_yaml(write(models, text), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("merge_method", "line 5, merge_method: must be the name of a method; got [["),
        ("dtype", "line 5, dtype: must be one of float32, float16, bfloat16, float64; got [["),
        ("base_model", "line 5, base_model: must be the path of a model; got [["),
        ("tokenizer_source", "line 5, tokenizer_source: must be the path of a model; got [["),
        ("paramters", "line 5, paramters: unknown key"),
        ("models", "models[0]: must be a mapping with the key model"),
    ],
)
def test_what_aliases_write_out_is_not_printed_whole(key: str, words: str, tmp_path: Path) -> None:
    text = "parameters:\n"
    text += "- &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
    text += f"- &b [{', '.join(['*a'] * 9)}]\n- &c [{', '.join(['*b'] * 9)}]\n{key}: [{', '.join(['*c'] * 9)}]\n"
    text += "" if key == "models" else "models: [{model: a}]\n"
    (tmp_path / "merge.yml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_merge_documents(tmp_path / "merge.yml")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + "+lora"])
def test_a_model_whose_name_no_file_system_takes_is_not_there(name: str, models: Path, tmp_path: Path) -> None:
    text = f"{{merge_method: linear, models: [{{model: a, parameters: {{weight: 1}}}}, {{model: {name}, parameters: {{weight: 1}}}}]}}"
    with pytest.raises((ConfigError, DataError), match="there is no model at") as caught:
        merge_from_yaml(write(models, text), tmp_path / "out")
    assert len(str(caught.value)) < 1000


def test_numbers_that_are_none_of_their_kind_are_refused() -> None:
    for value, kind in ((float("inf"), int), (float("nan"), int), (10**400, float)):
        with pytest.raises(ConfigError, match="must be a (whole|finite) number; got "):
            value_of(value, "a.weight", 0.0, kind)


def test_parameters_that_a_method_does_not_have_are_noted(models: Path, tmp_path: Path) -> None:
    first, second = "{model: a, parameters: {weight: 1, density: 0.5}}", "{model: b, parameters: {weight: 1}}"
    text = f"merge_method: linear\nmodels:\n- {first}\n- {second}\n"
    report = merge_from_yaml(write(models, text), tmp_path / "m.safetensors", hashes=False)
    assert report.notes == ("line 3: linear has no parameter 'density'; it is not used.",)
    assert (tmp_path / "m.safetensors").is_file()
    with pytest.raises(ConfigError, match="says models and method; leave --models, --method out"):
        raise_from_cli(["merge", str(models / "merge.yml"), "--models", "a", "--method", "ties", "--out", str(tmp_path / "x")])


def raise_from_cli(arguments: list[str]) -> None:
    from graftwork.cli import merge as verb
    from graftwork.cli.common import VerbParser

    parser = VerbParser()
    verb.add_arguments(parser)
    verb.run(parser.parse_args(arguments[1:]))


def test_layers_are_known_by_the_names_of_many_libraries() -> None:
    assert layer_of("encoder.layer.11.attention.self.query.weight") == ("encoder.layer.", 11, ".attention.self.query.weight")
    assert layer_of("transformer.h.0.attn.bias") == ("transformer.h.", 0, ".attn.bias")
    assert layer_of("blocks.3.norm1.weight") == ("blocks.", 3, ".norm1.weight")
    assert layer_of("lm_head.weight") is None


@pytest.mark.parametrize(
    ("method", "given", "same"),
    [
        (
            "nearswap",
            ["b", "--set", "t=0.1"],
            "{merge_method: nearswap, base_model: base, models: [{model: b}], parameters: {t: 0.1}}",
        ),
        ("arcee-fusion", ["a"], "{merge_method: arcee_fusion, base_model: base, models: [{model: a}]}"),
        ("sce", ["a", "b"], "{merge_method: sce, base_model: base, models: [{model: a}, {model: b}]}"),
        ("ramplus_tl", ["a", "b"], "{merge_method: ramplus_tl, base_model: base, models: [{model: a}, {model: b}]}"),
    ],
)
def test_methods_by_name_are_those_of_files(
    method: str, given: list[str], same: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(models)
    assert (
        main(["merge", "--base", "base", "--method", method, "--out", str(tmp_path / "named.safetensors"), "--models", *given])
        == 0
    )
    number = sum(len(word) == 1 for word in given)
    assert f": {number} model{'s' if number > 1 else ''}, " in capsys.readouterr().out
    merge_from_yaml(write(models, same), tmp_path / "file.safetensors", hashes=False)
    named, file = (load_file(tmp_path / f"{name}.safetensors") for name in ("named", "file"))
    assert set(named) == set(file)
    for key, values_of_key in named.items():
        np.testing.assert_array_equal(values_of_key, file[key], err_msg=key)
