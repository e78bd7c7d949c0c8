"""IA3 as changes of a merge: the numbers of folding it into the base, those of peft, and what cannot be merged without a base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.files import hash_file
from graftwork.core.tensor_files import TensorFile
from graftwork.methods.tuning.ia3 import IA3
from graftwork.methods.tuning.peft_ia3 import read_ia3
from graftwork.nn.weight_delta import LowRank, Rescaled, WeightDelta
from graftwork.workflows.merge import merge


class Net(nn.Module):
    """Layers with and without a bias, a convolution among them."""

    def __init__(self) -> None:
        super().__init__()
        self.maps, self.key, self.value = nn.Conv2d(1, 4, 2), nn.Linear(4, 6), nn.Linear(6, 6, bias=False)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        states = self.maps(pictures).mean(dim=(2, 3))
        return self.fc2(torch.relu(self.value(self.key(states))))  # type: ignore[no-any-return]


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


PICTURES = 10.0 * torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))
CHOICES: dict[str, dict[str, Any]] = {
    "one": {"target_modules": ("maps", "key", "fc2"), "feedforward_modules": ("fc2",)},
    "two": {"target_modules": ("key", "value", "fc2"), "feedforward_modules": ("fc2",)},
}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A base, two IA3 as folders of peft and as delta files, and the models with them folded in."""
    save_file(net().state_dict(), tmp_path / "base.safetensors")
    for seed, (name, settings) in enumerate(CHOICES.items(), start=1):
        model, tuner = net(), IA3(**settings)
        tuner.attach(model)
        torch.manual_seed(seed)
        for scale in tuner.trainable():
            scale.data.uniform_(0.5, 1.5)
        tuner.delta().save(tmp_path / f"{name}.safetensors")
        tuner.save_pretrained(tmp_path / name, base_model="net")
        tuner.fold()
        save_file(model.state_dict(), tmp_path / f"{name}-folded.safetensors")
    return tmp_path


def answers(delta: WeightDelta) -> torch.Tensor:
    model = net()
    delta.attach(model, check=False)
    delta.fold()
    with torch.no_grad():
        return model(PICTURES)  # type: ignore[no-any-return]


def folded(world: Path, **options: Any) -> torch.Tensor:
    """Return the answers of the merge of whole models."""
    models = [world / "one-folded.safetensors", world / "two-folded.safetensors"]
    merge(world / "base.safetensors", models, world / "folded.safetensors", **options)
    model = net()
    model.load_state_dict(load_file(world / "folded.safetensors"))
    with torch.no_grad():
        return model(PICTURES)  # type: ignore[no-any-return]


LINEAR = [{"method": "averaging", "weights": [0.25, 0.75]}, {"method": "task-arithmetic", "scaling": 0.8, "weights": [1.0, -0.5]}]


@pytest.mark.parametrize("options", LINEAR)
def test_delta_files_without_a_base_give_what_the_folded_models_give(options: dict[str, Any], world: Path) -> None:
    merge(None, [world / "one.safetensors", world / "two.safetensors"], world / "both.safetensors", **options)
    found = WeightDelta.load(world / "both.safetensors")
    assert {type(part) for part in found.parts.values()} == {Rescaled}
    assert (answers(found) - answers(WeightDelta({}, {}))).abs().max() > 0.01
    torch.testing.assert_close(answers(found), folded(world, **options))


@pytest.mark.parametrize("options", LINEAR)
def test_folders_without_a_base_become_a_folder_that_peft_reads(options: dict[str, Any], world: Path) -> None:
    peft = pytest.importorskip("peft")
    # A delta of IA3 is as good as a folder of it.
    report = merge(None, [world / "one", world / "two.safetensors"], world / "both", **options)
    assert report.num_parameters == 4 + 6 + 6 + 6
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(net(), world / "both").eval()(PICTURES)
    torch.testing.assert_close(found, folded(world, **options))
    metadata = TensorFile(world / "both" / "adapter_model.safetensors").metadata
    assert json.loads(metadata["inputs_sha256"])["one/adapter_config.json"] == hash_file(world / "one" / "adapter_config.json")


def test_a_mean_is_the_weighted_adapter_of_peft(world: Path) -> None:
    peft = pytest.importorskip("peft")
    for number, name in enumerate(("first", "second")):
        tuner = IA3(target_modules=("maps", "key", "fc2"), feedforward_modules=("fc2",))
        tuner.attach(net())
        torch.manual_seed(number)
        for scale in tuner.trainable():
            scale.data.uniform_(0.5, 1.5)
        tuner.save_pretrained(world / name)
    # peft adds up the factors themselves, so that it is a mean where the weights have the sum 1.
    model = peft.PeftModel.from_pretrained(net(), world / "first", adapter_name="first")
    model.load_adapter(world / "second", adapter_name="second")
    model.base_model.add_weighted_adapter(["first", "second"], [0.3, 0.7], "both")
    model.set_adapter("both")
    merge(None, [world / "first", world / "second"], world / "mean", method="averaging", weights=[0.3, 0.7])
    with torch.no_grad():
        expected = model.eval()(PICTURES)
        torch.testing.assert_close(peft.PeftModel.from_pretrained(net(), world / "mean").eval()(PICTURES), expected)


@pytest.mark.parametrize("method", ["averaging", "task-arithmetic", "ties", "slerp", "dare"])
def test_with_a_base_every_method_takes_folders(method: str, world: Path) -> None:
    merge(world / "base.safetensors", [world / "one", world / "two"], world / "whole.safetensors", method=method)
    folded(world, method=method)
    found, expected = load_file(world / "whole.safetensors"), load_file(world / "folded.safetensors")
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_a_prefix_of_the_base_is_found(world: Path) -> None:
    base = {f"net.{name}": tensor for name, tensor in load_file(world / "base.safetensors").items()}
    save_file(base, world / "net.safetensors")
    report = merge(world / "net.safetensors", [world / "one"], world / "m.safetensors", method="averaging")
    assert report.notes == (f"{world / 'one'}: 'net.' put before its names.",)
    scale = read_ia3(world / "one")["key"].values
    merged = load_file(world / "m.safetensors")
    torch.testing.assert_close(merged["net.key.weight"], scale[:, None] * base["net.key.weight"])
    torch.testing.assert_close(merged["net.key.bias"], scale * base["net.key.bias"])
    save_file({"net.other": torch.ones(1)}, world / "other.safetensors")
    with pytest.raises(DataError, match=r"3 of the 3 tensors that it changes are not there"):
        merge(world / "other.safetensors", [world / "one"], world / "x.safetensors", method="averaging")


def test_exclude_leaves_a_layer_as_it_is(world: Path) -> None:
    report = merge(None, [world / "one", world / "two"], world / "both", method="averaging", exclude=["key*", "nothing"])
    assert sorted(read_ia3(world / "both")) == ["fc2", "maps", "value"]
    assert any("'nothing' fits no tensor" in note for note in report.notes)


def test_what_depends_on_the_base_is_refused_without_one(world: Path, tmp_path: Path) -> None:
    for out in ("x.safetensors", "x"):
        with pytest.raises(DataError, match=r"rescal.*'?key\.weight.*--base"):
            merge(None, [world / "one.safetensors", world / "two.safetensors"], tmp_path / out, method="ties")
    # The other change of the tensor is low rank: the sum of both has no form without the base.
    factors = LowRank(torch.ones(1, 4), torch.ones(6, 1))
    WeightDelta({"key.weight": factors}, {"key.weight": torch.Size([6, 4])}).save(tmp_path / "lora.safetensors")
    with pytest.raises(DataError, match=r"rescal.*key\.weight.*--base"):
        merge(None, [world / "one.safetensors", tmp_path / "lora.safetensors"], tmp_path / "x.safetensors", method="averaging")
    with pytest.raises(ConfigError, match=r"one holds factors of layers.*--base"):
        merge(None, [world / "one", tmp_path / "lora.safetensors"], tmp_path / "x", method="averaging")
    with pytest.raises(ConfigError, match=r"one holds factors of layers.*without their shapes.*folder"):
        merge(None, [world / "one", world / "two"], tmp_path / "x.safetensors", method="averaging")
    with pytest.raises(ConfigError, match="--rank"):
        merge(None, [world / "one", world / "two"], tmp_path / "x", method="averaging", rank=2)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.safetensors").exists()


def test_factors_of_other_sides_or_sizes_are_refused(world: Path) -> None:
    for name, settings, size in (("outputs", {"target_modules": ("fc2",)}, 3), ("inputs", CHOICES["one"], 6)):
        model, tuner = net(), IA3(**settings)
        if name == "inputs":
            model.fc2 = nn.Linear(9, 3)
        tuner.attach(model)
        tuner.save_pretrained(world / name)
        with pytest.raises(DataError, match=rf"'fc2'.*{size if name == 'outputs' else 9}"):
            merge(None, [world / "two", world / name], world / "x", method="averaging")
