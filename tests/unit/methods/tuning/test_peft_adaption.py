"""Adaption prompts that peft saved give the numbers of peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.methods.tuning.peft_adaption import GatedPrompts, prompts_from_peft
from graftwork.methods.tuning.peft_delta import delta_from_peft
from graftwork.methods.tuning.peft_reading import CONFIG_NAME, WEIGHTS_NAME
from graftwork.nn.module_delta import load_delta

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
IDS = torch.arange(12).reshape(2, 6)
SIZES: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


def language_model(kind: str = "Llama") -> Any:
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**SIZES)).eval()


def answers(model: Any, **keywords: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **keywords)[0]  # type: ignore[no-any-return]


def saved(folder: Path, kind: str = "Llama", **keywords: Any) -> torch.Tensor:
    """Save random prompts of peft in two of three blocks and return the answers of the model with them."""
    model = peft.get_peft_model(language_model(kind), peft.AdaptionPromptConfig(adapter_len=3, adapter_layers=2)).eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    return answers(model, **keywords)


@pytest.mark.parametrize("kind", ["Llama", "Mistral"])
def test_prompts_give_the_answers_of_peft_and_go_away_again(kind: str, tmp_path: Path) -> None:
    padding = torch.ones_like(IDS)
    padding[0, :2] = 0
    expected, base = saved(tmp_path, kind, attention_mask=padding), language_model(kind)
    plain = answers(base, attention_mask=padding)
    assert (expected - plain).abs().max() > 1e-2
    delta = prompts_from_peft(tmp_path, base)
    assert len(delta.grafts) == 2
    delta.attach(base)
    torch.testing.assert_close(answers(base, attention_mask=padding), expected, rtol=1e-4, atol=1e-5)
    delta.detach()
    assert torch.equal(answers(base, attention_mask=padding), plain)


def test_the_delta_is_saved_scaled_and_bound_to_its_base(tmp_path: Path) -> None:
    expected, base = saved(tmp_path / "adapter"), language_model()
    plain = answers(base)
    prompts_from_peft(tmp_path / "adapter", base).save(tmp_path / "prompts.safetensors")
    read: Any = load_delta(tmp_path / "prompts.safetensors")
    for factor, wanted in ((1.0, expected), (0.0, plain)):
        scaled = read.scale(factor)
        scaled.attach(base)
        torch.testing.assert_close(answers(base), wanted, rtol=1e-4, atol=1e-5)
        scaled.detach()
    torch.manual_seed(5)
    other = transformers.LlamaModel(transformers.LlamaConfig(**SIZES))
    with pytest.raises(ConfigError, match="base"):
        read.attach(other)


def test_names_of_a_base_inside_of_another_module(tmp_path: Path) -> None:
    expected, inner = saved(tmp_path), language_model()
    outer = nn.ModuleDict({"model": inner})
    prompts_from_peft(tmp_path, outer, prefix="model.").attach(outer)
    torch.testing.assert_close(answers(inner), expected, rtol=1e-4, atol=1e-5)


def test_generation_with_a_cache_goes_on_as_without(tmp_path: Path) -> None:
    saved(tmp_path)
    base = language_model()
    prompts_from_peft(tmp_path, base).attach(base)
    with torch.no_grad():
        first = base(input_ids=IDS[:, :4], use_cache=True)
        second = base(input_ids=IDS[:, 4:], past_key_values=first.past_key_values)[0]
    torch.testing.assert_close(second, answers(base)[:, 4:], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(ConfigError, match=r"'ADAPTION_PROMPT'.*prompts_from_peft\(folder, model\)"):
        delta_from_peft(tmp_path, language_model())
    with pytest.raises(ConfigError, match="no module 'layers.1.self_attn'"):
        prompts_from_peft(tmp_path, nn.ModuleDict({"a": nn.Linear(2, 2)}))
    wide = transformers.LlamaModel(transformers.LlamaConfig(**{**SIZES, "hidden_size": 32}))
    with pytest.raises(ConfigError, match=r"adaption_prompt' is \[1, 3, 16\] in the delta, \[1, 3, 32\] here"):
        prompts_from_peft(tmp_path, wide)
    bert = nn.ModuleDict({"layers": nn.ModuleList([nn.Identity(), nn.ModuleDict({"self_attn": nn.Linear(2, 2)})])})
    with pytest.raises(ConfigError, match="attention of llama and mistral models of transformers; got Linear"):
        prompts_from_peft(tmp_path, bert)
    with pytest.raises(ConfigError, match="`num_tokens` must be at least 1"):
        GatedPrompts(language_model().layers[0].self_attn, num_tokens=0)
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    for changes, message in (
        ({"peft_type": "LORA"}, "peft_type is 'LORA', not 'ADAPTION_PROMPT'"),
        ({"gates_of_tomorrow": 2}, "gates_of_tomorrow is a setting that is not known here"),
    ):
        (tmp_path / CONFIG_NAME).write_text(json.dumps({**config, **changes}))
        with pytest.raises(ConfigError, match=message):
            prompts_from_peft(tmp_path, language_model())


def test_half_a_prompt_is_damage(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_NAME)
    gates = {name: tensor for name, tensor in tensors.items() if name.endswith("gate")}
    for left in (gates, {}):
        save_file(left, tmp_path / WEIGHTS_NAME)
        with pytest.raises(FileFormatError, match="are expected|holds no prompt"):
            prompts_from_peft(tmp_path, language_model())
