"""Numbers and adapter folders agree with peft, in both directions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.peft_folder import CONFIG_NAME, WEIGHTS_NAME


class Mixed(nn.Module):
    """A convolution with stride and padding, a pointwise one and two linear layers, one of them nested under the other's name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.point = nn.Conv2d(6, 5, 1, bias=False)
        self.fc = nn.Linear(5, 4)
        self.block = nn.ModuleDict({"fc": nn.Linear(4, 3)})

    def forward(self, pictures: Tensor) -> Tensor:
        state = torch.relu(self.point(torch.relu(self.conv(pictures)))).mean(dim=(2, 3))
        return self.block["fc"](torch.relu(self.fc(state)))


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return Mixed()


INPUTS = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))
SETTINGS: list[dict[str, Any]] = [
    {"r": 2, "lora_alpha": 6, "target_modules": ["conv", "point", "fc"]},
    {"r": 3, "lora_alpha": 4, "target_modules": ["conv"], "use_rslora": True},
    {"r": 4, "lora_alpha": 4, "target_modules": r"fc"},
    {"r": 2, "lora_alpha": 8, "target_modules": "all-linear"},
]


def peft_model(base: nn.Module, settings: dict[str, Any]) -> nn.Module:
    peft = pytest.importorskip("peft")
    torch.manual_seed(2)
    return peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(init_lora_weights=False, **settings)).eval()


@pytest.mark.parametrize("settings", SETTINGS)
def test_same_weights_give_the_numbers_of_peft(base: nn.Module, settings: dict[str, Any]) -> None:
    reference = peft_model(base, settings)
    weights = {name: parameter.data for name, parameter in reference.named_parameters() if "lora_" in name}
    tuner = LoRA(**settings)
    tuner.attach(base)
    assert len(weights) == 2 * len(tuner.layers)
    for name, layer in tuner.layers.items():
        for part, module in (("A", layer.down), ("B", layer.up)):
            module.weight.data.copy_(weights[f"base_model.model.{name}.lora_{part}.default.weight"])  # type: ignore[operator, union-attr]
    torch.testing.assert_close(base(INPUTS), reference(INPUTS), rtol=1e-6, atol=1e-6)
    tuner.fold()
    merged = reference.merge_and_unload()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(base.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_adapter_of_peft_is_read(base: nn.Module, settings: dict[str, Any], tmp_path: Path) -> None:
    reference = peft_model(base, settings)
    reference.save_pretrained(tmp_path)  # type: ignore[operator]
    tuner = LoRA.from_pretrained(base, tmp_path)
    torch.testing.assert_close(base(INPUTS), reference(INPUTS), rtol=1e-6, atol=1e-6)
    assert tuner.r == settings["r"]


@pytest.mark.parametrize("settings", SETTINGS)
def test_peft_reads_what_was_saved(base: nn.Module, settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = copy.deepcopy(base)
    tuner = LoRA(**settings)
    tuner.attach(base)
    for parameter in tuner.trainable():
        nn.init.normal_(parameter, std=0.3)
    tuner.save_pretrained(tmp_path, base_model="mixed")
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    torch.testing.assert_close(loaded(INPUTS), base(INPUTS), rtol=1e-6, atol=1e-6)
    adapters = {name for name, _ in loaded.named_parameters() if "lora_" in name}
    assert len(adapters) == 2 * len(tuner.layers)  # the expression "fc" does not also catch "block.fc"


def test_own_round_trip_with_different_ranks(base: nn.Module, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    plain, again = copy.deepcopy(base), copy.deepcopy(base)
    tuner = LoRA(r=2, lora_alpha=4)
    tuner.attach_ranks(base, {"fc": 2, "block.fc": 3})
    for parameter in tuner.trainable():
        nn.init.normal_(parameter)
    tuner.save_pretrained(tmp_path)
    LoRA.from_pretrained(again, tmp_path)
    torch.testing.assert_close(again(INPUTS), base(INPUTS))
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path).eval()
    torch.testing.assert_close(loaded(INPUTS), base(INPUTS))


def saved(base: nn.Module, folder: Path) -> Path:
    tuner = LoRA(r=2, target_modules="fc")
    tuner.attach(base)
    tuner.save_pretrained(folder)
    return folder


def test_damaged_and_foreign_folders_are_refused(base: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"adapter_config.json is missing"):
        LoRA.from_pretrained(base, tmp_path)
    folder = saved(copy.deepcopy(base), tmp_path)
    with pytest.raises(ConfigError, match=r"made for another model: this one has no layer 'fc'"):
        LoRA.from_pretrained(nn.Sequential(nn.Linear(2, 2)), folder)
    with pytest.raises(ConfigError, match=r"layer 'fc' needs \[2, 3\], the file holds \[2, 5\]"):
        LoRA.from_pretrained(nn.ModuleDict({"fc": nn.Linear(3, 4)}), folder)
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**config, "use_dora": True, "bias": "all"}))
    with pytest.raises(ConfigError, match=r"use_dora is True; only False can be read(.|\n)*bias is 'all'"):
        LoRA.from_pretrained(base, folder)
    (folder / CONFIG_NAME).write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(ConfigError, match="peft_type is 'IA3'"):
        LoRA.from_pretrained(base, folder)
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    content = (folder / WEIGHTS_NAME).read_bytes()
    for broken in (b"", content[:40], b"\x80\x04" + content):
        (folder / WEIGHTS_NAME).write_bytes(broken)
        with pytest.raises(FileFormatError, match=r"adapter_model\.safetensors"):
            LoRA.from_pretrained(base, folder)
