"""Adapters of peft that are refused: the message says what they hold and what to do, and what it says works."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.methods.tuning.ia3 import IA3
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.peft_delta import delta_from_peft
from graftwork.methods.tuning.peft_ia3 import read_ia3
from graftwork.nn.foldable import plain_state
from graftwork.nn.weight_delta import WeightDelta

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
IDS = torch.arange(12).reshape(2, 6)
REMEDY = r"let peft write it into its base .*merge_and_unload\(\).*give the whole model"


def bert(labels: int = 0) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
    config = transformers.BertConfig(**sizes, max_position_embeddings=8, num_labels=labels or 2)
    return (transformers.BertForSequenceClassification(config) if labels else transformers.BertModel(config)).eval()


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS)[0]  # type: ignore[no-any-return]


def saved(base: nn.Module, folder: Path, config: Any, **how: Any) -> torch.Tensor:
    """Save a random adapter of peft and return the answers of the model with it."""
    torch.manual_seed(1)
    model = peft.get_peft_model(base, config).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder, **how)
    return answers(model)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["query"], "bias": "all"}, "bias is 'all'.*biases of the base were trained with it"),
        ({"target_modules": ["query"], "bias": "lora_only"}, "bias is 'lora_only'.*biases of the base were trained"),
        ({"target_modules": ["query"], "lora_bias": True}, "lora_bias is True.*its updates have biases"),
        ({"target_modules": ["query", "word_embeddings"]}, "update of the embedding 'embeddings.word_embeddings'"),
        (
            {"target_modules": ["query"], "trainable_token_indices": {"word_embeddings": [1, 2]}},
            "trainable_token_indices is .*rows of an embedding were trained",
        ),
    ],
)
def test_what_was_trained_besides_is_named_and_the_remedy_works(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    expected = saved(bert(), tmp_path / "adapter", peft.LoraConfig(r=2, **settings))
    with pytest.raises(ConfigError, match=rf"{message}(.|\n)*{REMEDY}"):
        delta_from_peft(tmp_path / "adapter", bert())
    # As the message says:
    merged = peft.PeftModel.from_pretrained(bert(), tmp_path / "adapter").merge_and_unload()
    base = bert()
    assert (expected - answers(base)).abs().max() > 1e-3
    WeightDelta.between(plain_state(base), plain_state(merged)).attach(base)
    torch.testing.assert_close(answers(base), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules_to_save": ["classifier"]}, r"modules_to_save is \['classifier'\].*layers of the base were trained whole"),
        ({"use_dora": True}, "use_dora is True.*magnitudes"),
        ({"alpha_pattern": {"query": 7}}, "alpha_pattern is .*differs between layers"),
    ],
)
def test_what_the_tuner_does_not_go_on_with_is_read_as_a_difference(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    expected = saved(bert(3), tmp_path, peft.LoraConfig(r=2, target_modules=["query"], **settings))
    with pytest.raises(ConfigError, match=rf"{message}.*read it as a difference of weights, by delta_from_peft\(folder, model\)"):
        LoRA.from_pretrained(bert(3), tmp_path)
    base = bert(3)
    delta_from_peft(tmp_path, base).attach(base)
    torch.testing.assert_close(answers(base), expected, rtol=1e-4, atol=1e-5)


def test_embeddings_that_were_saved_besides_are_named_and_can_be_left_out(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["query"])
    saved(bert(), tmp_path / "with", config, save_embedding_layers=True)
    with pytest.raises(ConfigError, match=r"word_embeddings\.weight', which is a whole tensor .*save_embedding_layers=False"):
        delta_from_peft(tmp_path / "with", bert())
    expected, base = saved(bert(), tmp_path / "without", config, save_embedding_layers=False), bert()
    delta_from_peft(tmp_path / "without", base).attach(base)
    torch.testing.assert_close(answers(base), expected, rtol=1e-4, atol=1e-5)


def test_ia3_with_whole_layers_says_what_to_do(tmp_path: Path) -> None:
    config = peft.IA3Config(target_modules=["query"], feedforward_modules=[], modules_to_save=["classifier"])
    saved(bert(3), tmp_path, config)
    with pytest.raises(ConfigError, match=rf"modules_to_save is \['classifier'\]; only None can be read with IA3; {REMEDY}"):
        IA3.from_pretrained(bert(3), tmp_path)


def test_other_kinds_are_named_with_what_helps(tmp_path: Path) -> None:
    tokens = peft.PrefixTuningConfig(num_virtual_tokens=3, task_type="FEATURE_EXTRACTION")
    peft.get_peft_model(bert(), tokens).save_pretrained(tmp_path / "prefix")
    with pytest.raises(
        ConfigError, match="'PREFIX_TUNING'.*learned keys and values .*can neither be read as one nor merged"
    ) as caught:
        delta_from_peft(tmp_path / "prefix", bert())
    assert "r is None" not in str(caught.value), "settings of LoRA are not asked of another kind"
    saved(bert(), tmp_path / "loha", peft.LoHaConfig(r=2, target_modules=["query"]))
    with pytest.raises(ConfigError, match=rf"peft_type is 'LOHA'; only 'LORA' can be read here; .*{REMEDY}"):
        delta_from_peft(tmp_path / "loha", bert())
    with pytest.raises(ConfigError, match="peft_type is 'LOHA'; 'IA3' is expected"):
        read_ia3(tmp_path / "loha")
