from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftwork.core.cards import load_cards
from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.cp_lora import CPLoRA
from graftwork.methods.tuning.peft_delta import delta_to_peft
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.foldable import fold_layers
from graftwork.nn.weight_delta import CP, Decomposed, LowRank, WeightDelta
from graftwork.workflows.tune.methods import card_methods, find_method, plan_of

NAMES = {
    "cp-lora": (CP, False),
    "lora-c": (LowRank, False),
    "conv-lora": (LowRank, False),
    "cp-dora": (CP, True),
    "dora-c": (LowRank, True),
    "conv-dora": (LowRank, True),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(36, 2)
    )


@pytest.mark.parametrize("name", list(NAMES))
def test_every_name_of_the_command_line_has_its_form_of_delta(name: str, tmp_path: Path) -> None:
    kind, is_decomposed = NAMES[name]
    tuner: Any = plan_of(find_method(name, {"r": 2})).train.tuning.build()  # type: ignore[union-attr]
    model, inputs = network(), torch.randn(4, 3, 5, 5)
    base = copy.deepcopy(model)
    tuner.attach(model)
    assert set(tuner.layers) == {"0", "2", "4"}, "convolutions with groups and linear layers too"
    for parameter in tuner.trainable():
        parameter.data += 0.1 * torch.rand(parameter.shape)
    delta = tuner.delta()
    for part in delta.parts.values():
        assert isinstance(part, Decomposed) is is_decomposed
        assert isinstance(part.direction if isinstance(part, Decomposed) else part, kind)
    assert delta.count() == sum(parameter.numel() for parameter in tuner.trainable())
    assert delta.lineage["form"] == tuner.form
    delta.save(tmp_path / "delta.safetensors")
    WeightDelta.load(tmp_path / "delta.safetensors").attach(base)
    torch.testing.assert_close(base.eval()(inputs), model.eval()(inputs), rtol=1e-5, atol=1e-5)


def test_folding_and_unfolding_are_exact() -> None:
    model, inputs = network().eval(), torch.randn(4, 3, 5, 5)
    names, before = list(model.state_dict()), {name: item.clone() for name, item in model.state_dict().items()}
    tuner = CPLoRA(r=3, decompose=True)
    tuner.attach(model)
    for parameter in tuner.trainable():
        parameter.data += 0.1
    expected = model(inputs)
    tuner.fold()
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(inputs), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="folded, so its base is gone"):
        tuner.delta()
    tuner.unfold()
    assert torch.equal(model(inputs), expected)
    assert torch.equal(model.state_dict()["0.base.weight"], before["0.weight"])


def test_the_shipped_convolutional_network_takes_every_form_and_folds() -> None:
    torch.manual_seed(0)
    backbone = build_backbone("conv-mini").eval()
    inputs = {"image": torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)}
    expected = backbone(inputs)
    for form in ("cp", "lora-c", "conv-lora"):
        model = copy.deepcopy(backbone)
        tuner = CPLoRA(r=2, form=form, decompose=True, working_size=32)
        tuner.attach(model)
        model.set_working_size(backbone.size)  # type: ignore[operator, attr-defined]
        torch.testing.assert_close(model.eval()(inputs), expected, rtol=1e-3, atol=1e-3)
        assert fold_layers(model) == len(tuner.layers) > 20


def test_layers_can_be_chosen_and_counted_from_the_output() -> None:
    tuner = CPLoRA(r=2, depth_share=0.5)
    tuner.attach(network())
    assert set(tuner.layers) == {"2", "4"}
    tuner = CPLoRA(r=2, target_modules=["0"])
    tuner.attach(network())
    assert set(tuner.layers) == {"0"}


def test_what_it_cannot_do_is_named(tmp_path: Path) -> None:
    for settings, message in (
        ({"r": 0}, "`r` must be at least 1; got 0"),
        ({"form": "tucker"}, "`form` must be one of cp, lora-c, conv-lora; got 'tucker'"),
        ({"depth_share": 0.0}, r"in \(0, 1\]; got 0.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            CPLoRA(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"update Conv2d and Linear layers inside the model; Sequential has none"):
        CPLoRA().attach(nn.Sequential(nn.ReLU()))
    tuner, model = CPLoRA(r=2), network()
    tuner.attach(model)
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(network())
    with pytest.raises(ConfigError, match="no UpdatedLayer '0'"):
        tuner.delta(network())
    for form in ("cp", "conv-lora"):
        tuner = CPLoRA(r=2, form=form, target_modules=["0"])  # type: ignore[arg-type]
        tuner.attach(network())
        with pytest.raises(ConfigError, match="'0.weight' is no low-rank difference of a layer's weight"):
            delta_to_peft(tuner.delta(), tmp_path / "adapter")


def test_methods_of_cards_are_found_by_name_and_only_when_named() -> None:
    found = card_methods()
    assert set(NAMES) <= set(found)
    assert not {"lora", "bn-only"} & set(found), "the usual names go before"
    plan = plan_of(find_method("cp-lora", {"r": 3}))
    assert plan.train.tuning is not None
    assert plan.train.tuning.settings == {"form": "cp", "decompose": False, "r": 3}
    with pytest.raises(ConfigError, match=r"Did you mean 'cp-lora'\?.*conv-dora"):
        find_method("cp-lore")
    assert {plan["name"] for plan in load_cards()["cp-lora"].plans} == set(NAMES)
