"""What adapters of peft say besides plain LoRA: DoRA, factors by layer, transposed weights, whole layers, and names of backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.peft_delta import delta_from_peft, delta_to_peft
from graftwork.nn.weight_delta import Decomposed, Dense, LowRank

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
IDS = torch.arange(12).reshape(2, 6)
SIZES: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}


def bert(*, labels: int = 0) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, intermediate_size=24, max_position_embeddings=8, num_labels=labels or 2)
    made = transformers.BertForSequenceClassification(config) if labels else transformers.BertModel(config)
    return made.eval()  # type: ignore[no-any-return]


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=20, n_embd=16, n_head=2, n_layer=2, n_positions=8)
    return transformers.GPT2Model(config).eval()  # type: ignore[no-any-return]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.sin(torch.arange(2 * 3 * 6 * 6.0)).view(2, 3, 6, 6))  # type: ignore[no-any-return]


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=IDS)
    return found if isinstance(found, torch.Tensor) else found[0]


def adapted(base: nn.Module, folder: Path, **settings: Any) -> torch.Tensor:
    """Save a random adapter of peft and return the answers of the model with it."""
    torch.manual_seed(1)
    asked = {"r": 2, "lora_alpha": 3, "init_lora_weights": False, **settings}
    model = peft.get_peft_model(base, peft.LoraConfig(**asked)).eval()
    for name, parameter in model.named_parameters():
        if "magnitude" in name or "modules_to_save" in name:
            parameter.data *= 1 + torch.rand_like(parameter)
    model.save_pretrained(folder)
    return answers(model)


@pytest.mark.parametrize(
    ("make", "settings", "kinds"),
    [
        (bert, {"target_modules": ["query", "output.dense"], "use_dora": True}, {Decomposed}),
        (bert, {"target_modules": ["value"], "use_dora": True, "use_rslora": True, "alpha_pattern": {"layer.1.*value": 9}}, {Decomposed}),
        (Convolutions, {"target_modules": ["conv"], "use_dora": True}, {Decomposed}),
        (bert, {"target_modules": ["query", "value"], "alpha_pattern": {"query": 7, "layer.1.attention.self.value": 1}}, {LowRank}),
        (bert, {"target_modules": ["value"], "rank_pattern": {"^encoder.layer.0.attention.self.value": 3}, "alpha_pattern": {"^encoder.layer.0.attention.self.value": 9}}, {LowRank}),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, {LowRank}),
        (lambda: bert(labels=3), {"target_modules": ["query"], "modules_to_save": ["classifier"]}, {LowRank, Dense}),
        (lambda: bert(labels=3), {"target_modules": ["query"], "task_type": "SEQ_CLS"}, {LowRank, Dense}),
    ],
)  # fmt: skip
def test_adapters_give_the_answers_of_peft(make: Any, settings: dict[str, Any], kinds: set[type], tmp_path: Path) -> None:
    base = make()
    plain, expected = answers(base), adapted(make(), tmp_path, **settings)
    assert (expected - plain).abs().max() > 1e-3
    delta = delta_from_peft(tmp_path, base)
    assert {type(part) for part in delta.parts.values()} == kinds
    delta.attach(base)
    torch.testing.assert_close(answers(base), expected, rtol=1e-4, atol=3e-6)
    delta.detach()
    assert torch.equal(answers(base), plain)


def test_whole_layers_need_the_base(tmp_path: Path) -> None:
    adapted(bert(labels=3), tmp_path, target_modules=["query"], modules_to_save=["classifier"])
    with pytest.raises(ConfigError, match=r"whole layers.*classifier\.\w+.*Give the base model as well"):
        delta_from_peft(tmp_path)
    with pytest.raises(ConfigError, match="no tensor .*classifier"):
        delta_from_peft(tmp_path, bert())


def test_factors_by_layer_go_back_to_peft(tmp_path: Path) -> None:
    expected = adapted(bert(), tmp_path / "theirs", target_modules=["query", "value"], alpha_pattern={"query": 7})
    delta_to_peft(delta_from_peft(tmp_path / "theirs", bert()), tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(bert(), tmp_path / "ours").eval()
    torch.testing.assert_close(answers(again), expected, rtol=1e-4, atol=1e-5)


def test_transposed_factors_go_back_to_peft(tmp_path: Path) -> None:
    expected = adapted(gpt2(), tmp_path / "theirs", target_modules=["c_attn"], fan_in_fan_out=True)
    delta = delta_from_peft(tmp_path / "theirs", gpt2())
    model = gpt2()
    delta.attach(model)
    torch.testing.assert_close(answers(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora = True, but the update of .* has no magnitudes"),
        ({"use_dora": "yes"}, "use_dora is 'yes'; it must be true or false"),
        ({"use_dora": True, "fan_in_fan_out": True}, "use_dora is True with fan_in_fan_out"),
        ({"alpha_pattern": {"query": "7"}}, "alpha_pattern is .*must say a finite number"),
        ({"alpha_pattern": [1]}, "alpha_pattern is"),
        # A pattern that takes exponential time.
        ({"alpha_pattern": {"(e+)+x": 1}}, r"alpha_pattern has '\(e\+\)\+x'; only short patterns"),
        ({"alpha_pattern": {"[": 1}}, "alpha_pattern has"),
        ({"modules_to_save": "classifier"}, "modules_to_save is 'classifier'; it must be a list"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    adapted(bert(), tmp_path, target_modules=["query"])
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises((ConfigError, FileFormatError), match=message):
        delta_from_peft(tmp_path)


def test_magnitudes_without_the_setting_are_refused(tmp_path: Path) -> None:
    adapted(bert(), tmp_path, target_modules=["query"], use_dora=True)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_dora": False}))
    with pytest.raises(FileFormatError, match="use_dora = False, but the update of .* has magnitudes"):
        delta_from_peft(tmp_path)


def test_deltas_of_backbones_are_adapters_of_the_plain_model(tmp_path: Path) -> None:
    from graftwork.nn.backbones.transformers_bridge import TransformersBackbone

    backbone = TransformersBackbone(bert())
    tuner = LoRA(r=2, target_modules=["query", "output.dense"])
    tuner.attach(backbone)
    torch.manual_seed(1)
    for parameter in tuner.trainable():
        nn.init.normal_(parameter, std=0.3)
    delta = tuner.delta()
    assert all(name.startswith("model.") for name in delta.names())
    delta_to_peft(delta, tmp_path, prefix="model.")
    loaded = peft.PeftModel.from_pretrained(bert(), tmp_path).eval()
    torch.testing.assert_close(answers(loaded), answers(backbone.model), rtol=1e-4, atol=1e-5)
    assert (answers(loaded) - answers(bert())).abs().max() > 1e-2
    other = TransformersBackbone(bert())
    delta_from_peft(tmp_path, other, prefix="model.").attach(other)
    torch.testing.assert_close(answers(other.model), answers(loaded), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="`prefix` is 'net.', but 'model"):
        delta_to_peft(delta, tmp_path, prefix="net.")
