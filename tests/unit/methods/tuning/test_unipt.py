from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.evaluation.memory_meter import MemoryMeter
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint
from graftwork.methods.tuning.ladder import LadderTuning
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.sherl import SHERL
from graftwork.methods.tuning.side_tuning import mean_of_tokens, token_mask
from graftwork.methods.tuning.unipt import ParallelNetwork, UniPT, related_tokens
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.foldable import plain_state
from graftwork.nn.module_delta import load_delta
from graftwork.workflows.tune.methods import find_method, plan_of

INPUTS = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}
TUNERS: dict[str, Any] = {
    "unipt": lambda: UniPT(hidden=6),
    "lst": lambda: LadderTuning(hidden=8),
    "sherl": lambda: SHERL(hidden=6),
}


def vit(**settings: Any) -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=4, width=16, depth=3, num_heads=2, **settings)


def tuned(name: str) -> tuple[ViTBackbone, Tuner]:
    model, tuner = vit(), TUNERS[name]()
    tuner.attach(model)
    for number, parameter in enumerate(tuner.trainable()):
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    return model, tuner


def test_tokens_are_related_as_numpy_says() -> None:
    random = np.random.default_rng(0)
    anchor, target = random.normal(size=(2, 2, 4, 3))
    anchor[0, 0] = 0.0  # like nothing: the identity alone is left
    mask = np.array([[1.0, 1, 1, 0], [1, 1, 1, 1]])
    products = np.maximum(np.einsum("bqd,bkd->bqk", anchor, target) * mask[:, None], 0.0)
    sums = products.sum(axis=-1, keepdims=True)
    shares = np.divide(products, sums, out=np.zeros_like(products), where=sums > 0)
    expected = (shares + np.eye(4)) @ target
    found = related_tokens(torch.from_numpy(anchor), torch.from_numpy(target), torch.from_numpy(mask))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(found[0, 0].numpy(), target[0, 0])
    uniform = related_tokens(torch.from_numpy(anchor), torch.from_numpy(target), torch.from_numpy(mask), "uniform")
    np.testing.assert_allclose(uniform[0].numpy(), target[0] + target[0, :3].mean(axis=0))


def test_the_network_is_the_formula_of_the_paper() -> None:
    side = ParallelNetwork(vit(), hidden=6)
    states = [torch.randn(2, 5, 16) for _ in range(4)]
    mask = torch.ones(2, 5)
    mask[0, 3:] = 0
    small = [down(state) for down, state in zip(side.down, states, strict=True)]
    anchor = small[-1]
    means = [mean_of_tokens(item, mask) for item in small]
    assert side.gate is not None
    confidence = torch.softmax(torch.cat([side.gate(means[-1] * mean) for mean in means[:-1]], dim=1), dim=1)
    total = torch.zeros_like(anchor)
    for depth in range(3):
        total += confidence[:, depth, None, None] * related_tokens(anchor, small[depth], mask)
    expected = side.up(torch.relu(anchor + side.project(total)))
    torch.testing.assert_close(side.tokens(states, mask), expected)
    assert len(side.down) == 4, "the embedding and three blocks, each with its own projection"
    uniform = ParallelNetwork(vit(), hidden=6, confidence="uniform")
    uniform.load_state_dict({name: item for name, item in side.state_dict().items() if not name.startswith("gate.")})
    total = torch.stack([related_tokens(anchor, small[depth], mask) for depth in range(3)]).mean(dim=0)
    torch.testing.assert_close(uniform.tokens(states, mask), side.up(torch.relu(anchor + side.project(total))))


def test_what_padding_holds_is_nowhere_read() -> None:
    side = ParallelNetwork(vit(), hidden=6)
    states = [torch.randn(1, 5, 16) for _ in range(4)]
    mask = torch.tensor([[1.0, 1, 1, 0, 0]])
    other = [state.clone() for state in states]
    for state in other:
        state[:, 3:] += 5.0
    found, again = (mean_of_tokens(side.tokens(item, mask), mask) for item in (states, other))
    torch.testing.assert_close(found, again)


def test_texts_of_any_padding_have_equal_answers_and_lora_holds_several_times_as_much() -> None:
    model = build_backbone("minilm").eval()
    short = {"token_ids": torch.tensor([[101, 7592, 2088, 102]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    long = {name: nn.functional.pad(item, (0, 5)) for name, item in short.items()}
    many = {"token_ids": torch.randint(1000, 2000, (2, 16)), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    found = {}
    for name, tuner in {"unipt": UniPT(), "lst": LadderTuning(hidden=76), "sherl": SHERL(), "lora": LoRA()}.items():
        twin = copy.deepcopy(model)
        tuner.attach(twin)
        if name != "lora":
            torch.testing.assert_close(twin.eval()(short), twin.eval()(long), rtol=1e-3, atol=1e-4)
        with MemoryMeter([*twin.parameters(), *twin.buffers()]) as meter:
            twin.train()(many).sum().backward()
        found[name] = meter.held_bytes
        trunk = [parameter for part, parameter in twin.named_parameters() if not part.startswith("side_network.")]
        if name != "lora":
            assert all(parameter.grad is None for parameter in trunk)
    assert found["unipt"] < 0.35 * found["lora"]
    assert found["sherl"] < 0.5 * found["lora"]
    assert found["unipt"] < found["sherl"]


@pytest.mark.parametrize("name", list(TUNERS))
def test_the_delta_goes_to_a_file_and_back_and_copies_work_on_their_own(name: str, tmp_path: Path) -> None:
    base = vit()
    kind, fingerprint, plain = type(base), state_fingerprint(plain_state(base)), base(INPUTS)
    model, tuner = tuned(name)
    learns = {id(parameter) for parameter in tuner.trainable()}
    assert learns == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    expected = model.eval()(INPUTS)
    assert not torch.allclose(expected, plain)
    assert expected.shape == plain.shape
    delta = tuner.delta()
    assert delta.base_fingerprint == fingerprint
    assert delta.count() == sum(parameter.numel() for parameter in tuner.trainable())
    assert list(delta.names()) == []
    delta.save(tmp_path / "delta.safetensors")
    loaded = load_delta(tmp_path / "delta.safetensors")
    loaded.attach(base)
    torch.testing.assert_close(base.eval()(INPUTS), expected, rtol=1e-5, atol=1e-6)
    twin = copy.deepcopy(base)
    loaded.detach()
    assert type(base) is kind
    assert torch.equal(base(INPUTS), plain)
    torch.testing.assert_close(twin(INPUTS), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tuner.delta(model=twin).grafts[0].tensors, delta.grafts[0].tensors)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot be written into weights"):
        tuner.fold()
    with pytest.raises(ConfigError, match="cannot be multiplied"):
        delta.scale(0.5)


@pytest.mark.parametrize("name", ["unipt", "lst"])
@pytest.mark.parametrize("layout", ["vector", "tokens", "map"])
def test_answers_have_the_layout_of_the_trunk(name: str, layout: Any) -> None:
    torch.manual_seed(0)
    pictures = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    trunks: list[Any] = [MiniViT(layout=layout, size=16, trained_size=16, width=8, depth=2, num_heads=2)]
    if layout != "tokens":
        trunks.append(MiniConv(layout=layout, size=32, width=8))
    for trunk in trunks:
        shape = trunk.eval()(pictures).shape
        tuner = TUNERS[name]()
        tuner.attach(trunk)
        assert trunk(pictures).shape == shape


def test_masks_are_read_where_they_fit() -> None:
    tokens = torch.zeros(2, 3, 4)
    assert token_mask({}, tokens).tolist() == [[1.0] * 3] * 2
    assert token_mask({"attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])}, tokens).tolist() == [
        [1.0, 1.0, 0.0],
        [1.0, 0.0, 0.0],
    ]
    assert token_mask({"attention_mask": torch.ones(2, 9)}, tokens).shape == (2, 3)


def test_what_it_cannot_do_is_named() -> None:
    for settings, message in (
        ({"factor": 0}, "`factor` and `hidden` must be at least 1; got 0 and None"),
        ({"confidence": "loud"}, "`confidence` must be one of learned, uniform; got 'loud'"),
        ({"mixing": "none"}, "`mixing` must be one of attention, uniform; got 'none'"),
    ):
        with pytest.raises(ConfigError, match=message):
            UniPT(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`hidden` must be a multiple of `num_heads`"):
        LadderTuning(hidden=6)
    tuner = UniPT()
    with pytest.raises(ConfigError, match="attached to no model yet"):
        tuner.delta()
    with pytest.raises(ConfigError, match="works on the blocks of a trunk, and Sequential has none"):
        tuner.attach(nn.Sequential(nn.Linear(2, 2)))
    model = vit()
    tuner.attach(model)
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(vit())
    with pytest.raises(ConfigError, match="has a side network"):
        UniPT().attach(model)


def test_the_command_line_finds_it_by_its_card() -> None:
    for name, kind in (("unipt", UniPT), ("lst", LadderTuning), ("sherl", SHERL)):
        tuning = plan_of(find_method(name)).train.tuning
        assert tuning is not None
        assert isinstance(tuning.build(), kind)
