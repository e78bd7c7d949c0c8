from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.evaluation.memory_meter import MemoryMeter
from graftwork.math.fingerprint import state_fingerprint
from graftwork.methods.tuning.full import FullTuning
from graftwork.methods.tuning.lora import LoRA
from graftwork.methods.tuning.s2a import S2A
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.foldable import plain_state
from graftwork.nn.module_delta import ModuleDelta, load_delta
from graftwork.nn.pooled_branch import PooledBranch
from graftwork.nn.weight_delta import WeightDelta
from graftwork.workflows.tune.methods import find_method, plan_of

PICTURES = {"image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


def vit() -> ViTBackbone:
    torch.manual_seed(0)
    return ViTBackbone(16, patch=4, width=16, depth=3, num_heads=2)


def learn(model: nn.Module, tuner: S2A, inputs: Any) -> None:
    for number, parameter in enumerate(tuner.trainable()):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))


def held(model: nn.Module, inputs: Any) -> int:
    with MemoryMeter([*model.parameters(), *model.buffers()]) as meter:
        model.train()(inputs).square().mean().backward()
    return meter.held_bytes


def test_biases_prompts_and_branches_learn_and_nothing_else() -> None:
    model = vit()
    tuner = S2A(num_tokens=2, bottleneck=4, depth_share=0.6)
    tuner.attach(model)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    kinds = {name.rpartition(".")[2] for name in learns}
    assert kinds == {"bias", "prompt", "weight"}
    assert {name for name in learns if name.endswith("weight")} == {
        f"blocks.{block}.{part}.weight" for block in (1, 2) for part in ("down", "up")
    }
    assert not any(name.startswith(("blocks.0.", "patches.")) for name in learns), "before the tuned blocks nothing learns"
    assert "norm.bias" in learns
    assert {id(parameter) for parameter in tuner.trainable()} == {
        id(parameter) for parameter in model.parameters() if parameter.requires_grad
    }
    model.train()(PICTURES).sum().backward()
    assert all(parameter.grad is not None for parameter in tuner.trainable())


def test_without_prompts_outputs_stay_and_codes_change_no_output() -> None:
    model = vit()
    before = model(PICTURES)
    exact, coded = copy.deepcopy(model), model
    for tuned, codes in ((exact, "none"), (coded, "derivative")):
        tuner = S2A(num_tokens=0, codes=codes)  # type: ignore[arg-type]
        tuner.attach(tuned)
        torch.testing.assert_close(tuned.train()(PICTURES), before, rtol=1e-5, atol=1e-5)
    gradients = []
    for tuned in (exact, coded):
        (tuned.train()(PICTURES) * torch.linspace(-1, 1, 16)).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in tuned.parameters() if parameter.grad is not None]))
    assert 0.95 < F.cosine_similarity(gradients[0], gradients[1], dim=0) < 1.0


def test_the_shipped_transformer_holds_a_quarter_of_full_tuning_and_less_than_a_third_of_lora() -> None:
    inputs = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}
    found = {}
    for name, tuner in {"s2a": S2A(), "exact": S2A(codes="none"), "lora": LoRA(), "full": FullTuning()}.items():
        model = build_backbone("vit-mini@32")
        tuner.attach(model)
        found[name] = held(model, inputs)
    assert found["s2a"] < 0.25 * found["full"]
    assert found["s2a"] < 0.33 * found["lora"]
    assert found["s2a"] < 0.5 * found["exact"]


def test_the_delta_has_biases_and_modules_and_goes_to_a_file_and_back(tmp_path: Path) -> None:
    model = vit()
    base, fingerprint = copy.deepcopy(model), state_fingerprint(plain_state(model))
    tuner = S2A(num_tokens=1, bottleneck=3)
    tuner.attach(model)
    learn(model, tuner, PICTURES)
    expected = model.eval()(PICTURES)
    delta = tuner.delta()
    assert isinstance(delta, ModuleDelta)
    assert [graft.component.path.rpartition(":")[2] for graft in delta.grafts] == ["PromptedBlock", "PooledBranch"] * 3
    assert delta.base_fingerprint == fingerprint
    assert delta.count() == sum(parameter.numel() for parameter in tuner.trainable())
    assert set(delta.weights.parts) == {
        name for name, _ in base.named_parameters() if name.endswith("bias") and not name.startswith("patches")
    }
    delta.save(tmp_path / "delta.safetensors")
    loaded = load_delta(tmp_path / "delta.safetensors")
    loaded.attach(base)
    torch.testing.assert_close(base.eval()(PICTURES), expected, rtol=1e-5, atol=1e-6)
    loaded.detach()
    assert state_fingerprint(plain_state(base)) == fingerprint
    with pytest.raises(ConfigError, match="cannot be written into weights"):
        tuner.fold()


def test_biases_alone_fold_exactly() -> None:
    model = vit()
    kind = type(model)
    tuner = S2A(num_tokens=0, bottleneck=0)
    tuner.attach(model)
    assert type(model) is not kind
    learn(model, tuner, PICTURES)
    expected = model.eval()(PICTURES)
    assert isinstance(tuner.delta(), WeightDelta)
    tuner.fold()
    assert type(model) is kind
    assert torch.equal(model.eval()(PICTURES), expected)


def test_networks_with_batch_norm_hold_codes_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Flatten()
    )
    tuner = S2A()
    tuner.attach(model)
    assert {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad} == {"bias"}
    # A bit a value of both activations, scales of both norms (4 bytes a channel), and the output for the loss.
    assert held(model, torch.randn(2, 3, 6, 6)) == 2 * (2 * 8 * 16 // 8) + 2 * 8 * 4 + 2 * 8 * 16 * 4


def test_texts_with_padding_have_branches_of_their_real_tokens() -> None:
    class Block(nn.Module):
        def forward(self, states: Tensor, mask: Tensor) -> Tensor:
            return states

    branch = PooledBranch(Block(), width=2, bottleneck=2, pool=2, layout="tokens")
    nn.init.ones_(branch.up.weight)
    states = torch.randn(1, 5, 2)
    mask = torch.zeros(1, 1, 1, 5)
    mask[..., 3:] = -1e9
    found = branch(states, mask) - states
    other = states.clone()
    other[:, 3:] += 7.0  # what padding holds is nowhere read
    torch.testing.assert_close((branch(other, mask) - other)[:, :4], found[:, :4])
    # By hand: windows of tokens 0 and 1, and of token 2 with a hidden one.
    for place, mean in ((0, states[:, :2].mean(dim=1)), (1, states[:, :2].mean(dim=1)), (2, states[:, 2])):
        torch.testing.assert_close(found[:, place], branch.up(F.gelu(branch.down(mean))))
    torch.testing.assert_close(branch(states, mask == 0) - states, found)


def test_maps_and_vectors_have_branches_too() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 5, 3)
    branch = PooledBranch(nn.Identity(), width=4, bottleneck=2, pool=2, layout="map")
    assert torch.equal(branch(maps), maps), "it starts at zero"
    nn.init.ones_(branch.up.weight)
    added = branch(maps) - maps
    expected = branch.up(F.gelu(branch.down(maps[:, :, 4, 2])))  # the last square is cut to one place
    torch.testing.assert_close(added[:, :, 4, 2], expected)
    torch.testing.assert_close(added[:, :, 0, 0], added[:, :, 1, 1])
    vectors = torch.randn(3, 4)
    branch = PooledBranch(nn.Identity(), width=4, bottleneck=2, pool=2, layout="vector")
    nn.init.ones_(branch.up.weight)
    half = PooledBranch(nn.Identity(), width=4, bottleneck=2, pool=2, layout="vector")
    half.load_state_dict(PooledBranch.scaled(branch.state_dict(), 0.5))
    torch.testing.assert_close(2 * (half(vectors) - vectors), branch(vectors) - vectors)
    with pytest.raises(ConfigError, match="must be at least 1; got 0 and 2"):
        PooledBranch(nn.Identity(), width=4, bottleneck=0, pool=2, layout="vector")


def test_what_it_cannot_do_is_named() -> None:
    for settings, message in (
        ({"num_tokens": -1}, "at least 0"),
        ({"pool": 0}, "`pool` at least 1"),
        ({"codes": "3-bit"}, "`codes` must be one of derivative, input, none; got '3-bit'"),
        ({"depth_share": 0.0}, r"in \(0, 1\]; got 0.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            S2A(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Sequential has neither"):
        S2A().attach(nn.Sequential(nn.ReLU()))
    tuner = S2A()
    with pytest.raises(ConfigError, match="attached to no model yet"):
        tuner.delta()
    tuner.attach(vit())
    with pytest.raises(ConfigError, match="attached to a model already"):
        tuner.attach(vit())


def test_the_command_line_finds_it_by_its_card() -> None:
    for name, settings in (("s2a", {}), ("s2a-bias", {"num_tokens": 0, "bottleneck": 0})):
        tuning = plan_of(find_method(name)).train.tuning
        assert tuning is not None
        assert isinstance(tuning.build(), S2A)
        assert dict(tuning.settings) == settings


def test_a_swin_gets_no_branches_and_no_prompts() -> None:
    from graftwork.nn.backbones.swin import SwinBackbone

    torch.manual_seed(0)
    model = SwinBackbone(16, patch=2, widths=(8, 16), depths=(1, 1), num_heads=(2, 2), window=4).eval()
    before = model(PICTURES)
    tuner = S2A()
    tuner.attach(model)
    torch.testing.assert_close(model.train()(PICTURES), before, rtol=1e-5, atol=1e-5)
    assert isinstance(tuner.delta(), WeightDelta)
