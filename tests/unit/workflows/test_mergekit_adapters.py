"""``model+adapter`` in YAML files: the numbers of merging the models that peft folded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import open_tensors
from graftwork.math.fingerprint import tensor_prints
from graftwork.nn.weight_delta import Dense, WeightDelta
from graftwork.workflows.mergekit import merge_from_yaml

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
ADAPTERS: dict[str, dict[str, Any]] = {
    "one": {"r": 2, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "two": {"r": 3, "lora_alpha": 3, "target_modules": ["up_proj"], "use_rslora": True},
}


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=20, max_position_embeddings=8, **sizes)).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another model, two adapters of peft, and the base with the adapters folded in."""
    root = tmp_path_factory.mktemp("world")
    tiny().save_pretrained(root / "base")
    tiny(7).save_pretrained(root / "other")
    for number, (name, settings) in enumerate(ADAPTERS.items()):
        torch.manual_seed(number + 1)
        model = peft.get_peft_model(tiny(), peft.LoraConfig(init_lora_weights=False, **settings))
        model.save_pretrained(root / name)
        model.merge_and_unload().save_pretrained(root / f"{name}-folded")
    return root


def merged(world: Path, text: str, out: Path) -> dict[str, np.ndarray]:
    path = world / "merge.yml"
    path.write_text(text)
    merge_from_yaml(path, out, hashes=False)
    return load_file(out / "model.safetensors")


FORMS = {
    "text": ("base+one", "base+two"),
    "long": ("{model: {path: base}, lora: {path: one}}", "{model: base, lora: two}"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["ties", "task_arithmetic"])
def test_it_is_the_merge_of_the_folded_models(form: str, method: str, world: Path, tmp_path: Path) -> None:
    text = f"""merge_method: {method}
base_model: base
models:
  - model: FIRST
    parameters: {{weight: 1, density: 0.6}}
  - model: SECOND
    parameters: {{weight: [0.2, 0.9], density: 0.4}}
"""
    first, second = FORMS[form]
    found = merged(world, text.replace("FIRST", first).replace("SECOND", second), tmp_path / "a")
    expected = merged(world, text.replace("FIRST", "one-folded").replace("SECOND", "two-folded"), tmp_path / "b")
    assert found.keys() == expected.keys()
    assert any(
        np.abs(found[name] - values).max() > 0.01 for name, values in load_file(world / "base" / "model.safetensors").items()
    )
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=2e-6, err_msg=name)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert "peft_type" not in config
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a")


def test_an_adapter_is_added_to_the_result_of_a_document(world: Path, tmp_path: Path) -> None:
    text = """name: mean
merge_method: linear
models: [{model: base}, {model: other}]
parameters: {weight: 1}
---
merge_method: passthrough
models: [{model: mean+one}]
"""
    found = merged(world, text, tmp_path / "out")
    base, other, folded = (load_file(world / name / "model.safetensors") for name in ("base", "other", "one-folded"))
    for name in base:
        expected = (base[name] + other[name]) / 2 + (folded[name] - base[name])
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=2e-6, err_msg=name)


def test_layers_of_a_base_with_an_adapter(world: Path, tmp_path: Path) -> None:
    text = """merge_method: passthrough
slices:
  - sources: [{model: base+one, layer_range: [0, 2]}]
  - sources: [{model: base, layer_range: [1, 2]}]
"""
    found = merged(world, text, tmp_path / "out")
    base, folded = (load_file(world / name / "model.safetensors") for name in ("base", "one-folded"))
    name = "model.layers.{}.self_attn.q_proj.weight"
    np.testing.assert_allclose(found[name.format(1)], folded[name.format(1)], rtol=1e-4, atol=2e-6)
    np.testing.assert_array_equal(found[name.format(2)], base[name.format(1)])


def test_the_lineage_has_model_and_adapter(world: Path, tmp_path: Path) -> None:
    path = world / "merge.yml"
    path.write_text("{merge_method: linear, models: [{model: base+one}, {model: other}], parameters: {weight: 1}}")
    report = merge_from_yaml(path, tmp_path / "out.safetensors")
    metadata = open_tensors(tmp_path / "out.safetensors").metadata
    assert json.loads(metadata["models"]) == ["base", "one", "other"]
    files = [world / "base" / "model.safetensors", world / "other" / "model.safetensors"]
    files += [world / "one" / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    assert set(json.loads(metadata["inputs_sha256"]).values()) == {hash_file(file) for file in files}
    assert report.num_models == 3


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("one", "line 3: .*one is a change of a base .* no whole model. Put its base before it: base"),
        ("base+other", "line 3: .*other stands behind a .*but it is none"),
        ("base+three", r"line 3: there is no adapter at three,"),
        ("nowhere+one", r"line 3: there is no model at nowhere\+one"),
        ("{model: {path: base, revision: main}, lora: one}", "line 3, models.0..model: names a revision"),
        ("{model: base, override_architecture: X}", "line 3, models.0..model: override_architecture is not supported"),
        ("{lora: one}", "line 3, models.0..model: must be the path of a model"),
    ],
)
def test_what_is_no_model_with_an_adapter_is_said(reference: str, message: str, world: Path, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        merged(world, f"merge_method: passthrough\nmodels:\n- model: {reference}\n", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_may_hold_a_plus(world: Path, tmp_path: Path) -> None:
    for name, target in (("c++", "base"), ("a+b", "one")):
        if not (world / name).exists():
            (world / name).symlink_to(world / target)
    found = merged(world, "merge_method: passthrough\nmodels:\n- model: c+++a+b\n", tmp_path / "out")
    expected = load_file(world / "one-folded" / "model.safetensors")
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=2e-6, err_msg=name)
    alone = merged(world, "merge_method: passthrough\nmodels:\n- model: c++\n", tmp_path / "alone")
    np.testing.assert_array_equal(
        alone["model.norm.weight"], load_file(world / "base" / "model.safetensors")["model.norm.weight"]
    )


def test_a_delta_that_knows_its_base_is_not_added_to_another(world: Path, tmp_path: Path) -> None:
    name = "model.norm.weight"
    weights = {key: torch.from_numpy(values) for key, values in load_file(world / "base" / "model.safetensors").items()}
    parts = {name: Dense(torch.full((16,), 0.5))}
    WeightDelta(parts, {name: torch.Size([16])}, base_prints=tensor_prints(weights)).save(tmp_path / "d.safetensors")
    place = tmp_path / "d.safetensors"
    found = merged(world, f"merge_method: passthrough\nmodels:\n- model: base+{place}\n", tmp_path / "out")
    np.testing.assert_allclose(found[name], load_file(world / "base" / "model.safetensors")[name] + 0.5)
    with pytest.raises(DataError, match="was tuned from another base"):
        merged(world, f"merge_method: passthrough\nmodels:\n- model: other+{place}\n", tmp_path / "other")
    text = f"name: mean\nmerge_method: passthrough\nmodels: [{{model: base}}]\n---\nmerge_method: passthrough\nmodels:\n- model: mean+{place}\n"
    with pytest.raises(
        ConfigError, match="line 7: .*knows the base that it was tuned from, and the result of the document 'mean' is another"
    ):
        merged(world, text, tmp_path / "stage")
