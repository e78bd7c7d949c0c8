"""Numbers and adapter folders agree with peft, in both directions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
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


@pytest.mark.parametrize(
    "init", ["pissa", "pissa_niter_4", "olora", "PiSSA", "corda", "loftq", "lora_ga", "mica", "something-new", 1]
)
def test_initialisations_that_change_the_base_are_refused_by_name(base: nn.Module, tmp_path: Path, init: object) -> None:
    folder = saved(copy.deepcopy(base), tmp_path)
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**config, "init_lora_weights": init}))
    with pytest.raises(ConfigError, match=r"init_lora_weights is .*changes the base weights too"):
        LoRA.from_pretrained(base, folder)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_peft_started_from_the_base_is_refused(base: nn.Module, tmp_path: Path, init: str) -> None:
    peft = pytest.importorskip("peft")
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["fc"], "init_lora_weights": init}
    peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=rf"init_lora_weights is '{init}'"):
        LoRA.from_pretrained(base, tmp_path)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal"])
def test_initialisations_that_leave_the_base_alone_are_read(base: nn.Module, tmp_path: Path, init: object) -> None:
    peft = pytest.importorskip("peft")
    settings = {"r": 2, "lora_alpha": 4, "target_modules": ["fc"], "init_lora_weights": init}
    reference = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings)).eval()
    for name, parameter in reference.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    reference.save_pretrained(tmp_path)
    LoRA.from_pretrained(base, tmp_path)
    torch.testing.assert_close(base(INPUTS), reference(INPUTS), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lora_scaling_of_tomorrow", 3),
        ("a_new_variant", True),
        ("a_new_config", {"x": 1}),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("kasa_config", {"beta": 1e-4}),
        ("monteclora_config", {"samples": 2}),
        ("velora_config", {"groups": 2}),
        ("arrow_config", {"top_k": 2}),
        ("alora_invocation_tokens", [1, 2]),
        ("layer_replication", [[0, 2]]),
        ("target_parameters", ["experts.weight"]),
        ("ensure_weight_tying", True),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("zero", 0),
    ],
)
def test_settings_that_are_not_known_are_refused_by_name(base: nn.Module, tmp_path: Path, key: str, value: object) -> None:
    folder = saved(copy.deepcopy(base), tmp_path)
    config = json.loads((folder / CONFIG_NAME).read_text())
    for off in (None, False, {}, []):
        if key not in ("megatron_config", "layer_replication", "target_parameters") or off is None:
            (folder / CONFIG_NAME).write_text(json.dumps({**config, key: off}))
            LoRA.from_pretrained(copy.deepcopy(base), folder)  # switched off, as newer versions of peft write it
    (folder / CONFIG_NAME).write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigError, match=rf"{key} is "):
        LoRA.from_pretrained(base, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 0}, "r is 0; it must be an integer"),
        ({"r": "2"}, "r is '2'"),
        ({"r": True}, "r is True"),
        ({"r": 2.5}, "r is 2.5"),
        ({"r": None}, "r is None"),
        ({"r": 4}, r"'fc' has rank 2, but adapter_config\.json says r = 4"),
        ({"r": 4, "rank_pattern": {"fc": [2]}}, "has rank 2"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_dropout": 1.5}, "lora_dropout is 1.5"),
        ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
    ],
)
def test_wrong_values_are_named(base: nn.Module, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = saved(copy.deepcopy(base), tmp_path)
    config = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**config, **changes}))
    with pytest.raises((ConfigError, FileFormatError), match=message):
        LoRA.from_pretrained(base, folder)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"LORA"', "[" * 99_999, '{"r": ' + "9" * 5000 + "}"])
def test_a_configuration_that_is_no_object_is_named(base: nn.Module, tmp_path: Path, text: str) -> None:
    folder = saved(copy.deepcopy(base), tmp_path)
    (folder / CONFIG_NAME).write_text(text)
    with pytest.raises(FileFormatError, match=r"adapter_config\.json"):
        LoRA.from_pretrained(base, folder)


def test_pairs_that_do_not_multiply_are_named(base: nn.Module, tmp_path: Path) -> None:
    folder = saved(copy.deepcopy(base), tmp_path)
    for up in (torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 2, dtype=torch.int8)):
        save_file({"fc.lora_A.weight": torch.zeros(2, 5), "fc.lora_B.weight": up}, folder / WEIGHTS_NAME)
        with pytest.raises(FileFormatError, match="no low-rank pair"):
            LoRA.from_pretrained(base, folder)
    pair = {"fc.lora_A.weight": torch.zeros(2, 5), "fc.lora_B.weight": torch.zeros(4, 2)}
    save_file({**pair, "base_model.model.fc.lora_A.weight": torch.ones(2, 5)}, folder / WEIGHTS_NAME)
    with pytest.raises(FileFormatError, match="holds A of 'fc' twice"):
        LoRA.from_pretrained(base, folder)
