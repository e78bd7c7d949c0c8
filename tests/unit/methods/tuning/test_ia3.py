"""IA3: which layers get factors, folding, deltas, and numbers and folders of peft in both directions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.methods.tuning.ia3 import IA3, usual_layers
from graftwork.methods.tuning.peft_delta import delta_from_peft, delta_to_peft
from graftwork.methods.tuning.peft_ia3 import CONFIG_NAME, WEIGHTS_NAME, read_ia3
from graftwork.nn.foldable import fold_layers
from graftwork.nn.rescaled_layer import RescaledLayer
from graftwork.nn.rowwise.deltas import RowwiseDeltas
from graftwork.nn.weight_delta import Rescaled, WeightDelta


class Block(nn.Module):
    """A layer of keys, one of values, a feed-forward network, and layers of which one name ends with another's."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.query = nn.Linear(6, 6), nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        self.fc1, self.fc2 = nn.Linear(6, 24), nn.Linear(24, 6)
        self.inner = nn.ModuleDict({"fc2": nn.Linear(6, 5)})

    def forward(self, states: Tensor) -> Tensor:
        mixed = torch.softmax(self.query(states) * self.key(states), dim=-1) * self.value(states)
        return self.inner["fc2"](states + self.fc2(torch.relu(self.fc1(mixed))))


class Pictures(nn.Module):
    """Convolutions with stride, padding and groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 4, 1)
        self.third = nn.Conv2d(4, 8, 3, groups=2, bias=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(pictures)))))


def inputs_of(model: nn.Module) -> Tensor:
    shape = (5, 6) if isinstance(model, Block) else (2, 3, 12, 12)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def learned(model: nn.Module, **settings: Any) -> IA3:
    """Attach an IA3 and let all its factors differ from one."""
    tuner = IA3(**settings)
    tuner.attach(model)
    torch.manual_seed(3)
    for parameter in tuner.trainable():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return tuner


@pytest.fixture(params=[Block, Pictures])
def base(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return request.param().eval()


SETTINGS: list[dict[str, Any]] = [
    {"target_modules": ["key", "value", "fc2"], "feedforward_modules": ["fc2"]},
    {"target_modules": r"key|fc2", "feedforward_modules": r"fc2"},
    {"target_modules": ["first", "second", "third"], "feedforward_modules": ["second"]},
]


def test_the_layers_of_the_paper_are_found() -> None:
    assert usual_layers(Block()) == {"key": "outputs", "value": "outputs", "fc2": "inputs"}
    timm = pytest.importorskip("timm")
    vision = usual_layers(timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=0))
    assert {name.split(".", 2)[2]: side for name, side in vision.items() if name.startswith("blocks.0.")} == {
        "attn.qkv": "outputs",
        "mlp.fc2": "inputs",
    }
    plain = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    assert usual_layers(plain) == {"0": "outputs", "2": "outputs"}
    with pytest.raises(ConfigError, match="no layer"):
        usual_layers(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("settings", SETTINGS)
def test_numbers_and_folders_of_peft(settings: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = (Pictures() if "first" in settings["target_modules"] else Block()).eval()
    torch.manual_seed(2)
    reference = peft.get_peft_model(copy.deepcopy(base), peft.IA3Config(init_ia3_weights=False, **settings)).eval()
    expected = reference(inputs_of(base))
    reference.save_pretrained(tmp_path / "theirs")
    model = copy.deepcopy(base)
    tuner = IA3.from_pretrained(model, tmp_path / "theirs")
    torch.testing.assert_close(model(inputs_of(base)), expected)
    assert {name for name, layer in tuner.layers.items() if layer.side == "inputs"} == {
        name for name in tuner.layers if name.endswith(("fc2", "second"))
    }
    attached = copy.deepcopy(base)
    delta_from_peft(tmp_path / "theirs", attached).attach(attached)
    torch.testing.assert_close(attached(inputs_of(base)), expected)
    tuner.save_pretrained(tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "ours")).eval()
    torch.testing.assert_close(again(inputs_of(base)), expected)
    assert len([name for name, _ in again.named_parameters() if "ia3_l" in name]) == len(tuner.layers)


def test_folding_and_the_delta_give_the_same(base: nn.Module, tmp_path: Path) -> None:
    names = {"target_modules": ["key", "fc2"], "feedforward_modules": ["inner.fc2"]} if isinstance(base, Block) else {}
    model, inputs = copy.deepcopy(base), inputs_of(base)
    assert torch.equal(copy.deepcopy(model)(inputs), model(inputs))
    tuner = learned(model, **names)
    expected = model(inputs)
    delta = tuner.delta()
    assert delta.count() == sum(len(part.scale) for part in delta.parts.values() if isinstance(part, Rescaled))
    delta.save(tmp_path / "delta.safetensors")
    plain = copy.deepcopy(base)
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    loaded = WeightDelta.load(tmp_path / "delta.safetensors")
    loaded.attach(plain)
    torch.testing.assert_close(plain(inputs), expected, rtol=1e-4, atol=1e-5)
    loaded.detach()
    assert all(torch.equal(before[name], tensor) for name, tensor in plain.state_dict().items())
    copied = copy.deepcopy(model)
    assert fold_layers(copied) == len(tuner.layers)
    torch.testing.assert_close(copied(inputs), expected, rtol=1e-4, atol=1e-5)
    tuner.fold()
    assert list(model.state_dict()) == list(base.state_dict())
    torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-5)
    tuner.unfold()
    assert torch.equal(model(inputs), expected)
    assert not any(isinstance(layer, RescaledLayer) for layer in base.modules())


def test_algebra_needs_the_base_where_it_has_to() -> None:
    torch.manual_seed(0)
    base = Block().eval()
    model = copy.deepcopy(base)
    delta = learned(model).delta()
    half = delta.scale(0.5)
    for name, tensor in base.state_dict().items():
        if name in delta.parts:
            torch.testing.assert_close(2 * half.change(name, tensor), delta.change(name, tensor))
    # A sum of rescalings is one, whatever the base is; with any other change it needs the base.
    both = delta + half
    assert {type(part) for part in both.parts.values()} == {Rescaled}
    for name in delta.parts:
        torch.testing.assert_close(both.change(name, base.state_dict()[name]), 1.5 * delta.change(name, base.state_dict()[name]))
    with pytest.raises(ConfigError, match=r"rescaling \(IA3\) .* delta.dense"):
        delta + delta.dense(base)
    summed, plain = delta.dense(base) + half.dense(base), copy.deepcopy(base)
    summed.attach(plain)
    for name in delta.parts:
        torch.testing.assert_close(
            plain.state_dict()[name], base.state_dict()[name] + 1.5 * delta.change(name, base.state_dict()[name])
        )
    with pytest.raises(ConfigError, match="does not fit"):
        WeightDelta({"w": Rescaled(torch.ones(3), 1)}, {"w": torch.Size([3, 2])})


@pytest.mark.parametrize("make", [Block, Pictures])
def test_rows_of_a_batch_have_factors_of_their_own(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    base = make().eval()
    inputs = inputs_of(base)[:2]
    delta = learned(copy.deepcopy(base)).delta()
    served = copy.deepcopy(base)
    deltas = RowwiseDeltas(served, inputs)
    deltas.add("one", delta)
    with torch.no_grad():
        mixed = deltas(inputs, ["one", None])
    assert not deltas.own_pass("one")
    tuned = copy.deepcopy(base)
    delta.attach(tuned)
    torch.testing.assert_close(mixed[0], tuned(inputs)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], base(inputs)[1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="goes with `target_modules`"):
        IA3(feedforward_modules=["fc2"])
    with pytest.raises(ConfigError, match="not among `target_modules`"):
        IA3(target_modules=["key"], feedforward_modules=["fc1"]).attach(Block())
    with pytest.raises(ConfigError, match="without groups; got Conv2d"):
        RescaledLayer(nn.Conv2d(4, 8, 3, groups=2), "inputs")
    tuner = learned(Block())
    with pytest.raises(ConfigError, match="no RescaledLayer 'key'"):
        tuner.delta(Block())
    with pytest.raises(ConfigError, match="cannot be written as a LoRA adapter"):
        delta_to_peft(tuner.delta(), tmp_path / "lora")
    tuner.save_pretrained(tmp_path / "ia3")
    with pytest.raises(ConfigError, match="no difference without the base"):
        delta_from_peft(tmp_path / "ia3")
    with pytest.raises(ConfigError, match="does not fit the model.*has no 'fc2.weight'"):
        delta_from_peft(tmp_path / "ia3", Pictures())
    with pytest.raises(ConfigError, match="does not fit this model"):
        IA3.from_pretrained(Pictures(), tmp_path / "ia3")


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ia3"
    learned(Block()).save_pretrained(folder)
    config, tensors = json.loads((folder / CONFIG_NAME).read_text()), load_file(folder / WEIGHTS_NAME)
    for change, message in (
        ({"peft_type": "LORA"}, "'IA3' is expected"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"modules_to_save": ["head"]}, "modules_to_save"),
        ({"feedforward_modules": "(a+)+$"}, "only names and short expressions"),
        ({"feedforward_modules": 3}, "must be names or an expression"),
        ({"new_setting": 1}, "a setting that is not known here"),
    ):
        (folder / CONFIG_NAME).write_text(json.dumps({**config, **change}))
        with pytest.raises(ConfigError) as caught:
            read_ia3(folder)
        assert message in str(caught.value)
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    first = next(iter(tensors))
    for damaged, kind, message in (
        ({}, FileFormatError, "holds no scale"),
        ({**tensors, "other": torch.ones(2)}, ConfigError, "no scale of IA3"),
        ({**tensors, first: torch.ones(2, 3)}, FileFormatError, r"has shape \[2, 3\]"),
        ({**tensors, first: tensors[first].long()}, FileFormatError, "torch.int64"),
    ):
        save_file(damaged, folder / WEIGHTS_NAME)
        with pytest.raises(kind, match=message):
            read_ia3(folder)
