from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.evaluation.memory_meter import MemoryMeter
from graftwork.methods.tuning.mobiletl import MobileTL, inverted_residuals
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.lite_stages import LiteStages
from graftwork.nn.freeze import is_batch_norm, is_mode_fixed
from graftwork.nn.weight_delta import WeightDelta
from graftwork.workflows.tune.methods import find_method, plan_of


class HardSwishBlock(nn.Module):
    """An inverted residual block as in MobileNetV3, without squeeze-and-excitation."""

    def __init__(self, width: int, factor: int = 4) -> None:
        super().__init__()
        inner = width * factor
        self.expand, self.norm1 = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.depthwise, self.norm2 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner)
        self.project, self.norm3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.hardswish(self.norm1(self.expand(x)))
        inner = F.hardswish(self.norm2(self.depthwise(inner)))
        return x + self.norm3(self.project(inner))


def network(blocks: int = 2) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), *(HardSwishBlock(8) for _ in range(blocks)), nn.Flatten()
    )
    for module in model.modules():
        if is_batch_norm(module):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
            module.weight.data.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    return model


def held(model: nn.Module, x: Tensor) -> int:
    with MemoryMeter([*model.parameters(), *model.buffers(), x]) as meter:
        model.train()(x).square().mean().backward()
    return meter.held_bytes


def test_blocks_are_found_by_their_structure() -> None:
    assert inverted_residuals(network()) == ["2", "3"]
    assert inverted_residuals(LiteStages(3, norms=True)) == [
        f"stages.{stage}.{block}" for stage, count in enumerate((1, 2, 2)) for block in range(count)
    ]
    assert inverted_residuals(LiteStages(2, norms=False)) == [], "without norms they are something else"
    assert len(inverted_residuals(build_backbone("conv-mini"))) == 11
    assert inverted_residuals(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))) == []


@pytest.mark.skipif(not has("timm"), reason="needs timm")
def test_blocks_of_timm_are_found() -> None:
    import timm

    for name, count in (("tf_efficientnet_lite0", 16), ("mobilenetv3_small_100", 11)):
        found = inverted_residuals(timm.create_model(name, pretrained=False))
        assert len(found) == count
        assert all(place.startswith("blocks.") for place in found)


def test_what_learns_in_a_block() -> None:
    model = network()
    MobileTL(blocks=1).attach(model)
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    convolutions = {f"3.{part}.weight" for part in ("expand", "depthwise", "project")}
    assert learns == convolutions | {"3.norm1.bias", "3.norm2.bias", "3.norm3.weight", "3.norm3.bias"}
    moving = {name for name, module in model.named_modules() if is_batch_norm(module) and not is_mode_fixed(module)}
    assert moving == {"3.norm3"}
    exact = network()
    MobileTL(blocks=1, exact=True).attach(exact)
    assert {name for name, parameter in exact.named_parameters() if parameter.requires_grad} == {
        name for name, _ in exact.named_parameters() if name.startswith("3.")
    }


def test_the_forward_pass_is_exact_and_a_block_holds_what_convolutions_need() -> None:
    x = torch.randn(4, 3, 6, 6)
    model = network()
    before = model.eval()(x)
    tuner = MobileTL(blocks=1)
    tuner.attach(model)
    last = model[3].norm3  # type: ignore[union-attr]
    last.eval()  # type: ignore[operator, union-attr]
    assert torch.equal(model.eval()(x), before)
    numbers = 4 * 36
    inputs = numbers * 4 * (8 + 32 + 32)  # of the three convolutions, float32
    masks = 2 * numbers * 32 // 8
    last_norm = numbers * 4 * 8 + 2 * 8 * 4  # its input, mean and deviation of the batch
    inner_norms = 2 * 32 * 4  # their scales
    output = numbers * 4 * 8  # of the loss in `held`
    assert held(model, x) == inputs + masks + last_norm + inner_norms + output
    exact = network()
    MobileTL(blocks=1, exact=True).attach(exact)
    assert held(model, x) < 0.6 * held(exact, x)


def test_gradients_are_those_of_a_network_whose_activations_have_steps_for_derivatives() -> None:
    original = F.hardswish

    class Step(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(x)
            return original(x)

        @staticmethod
        def backward(ctx, grad):  # type: ignore[no-untyped-def]
            return grad * (ctx.saved_tensors[0] > 0)

    x, model = torch.randn(4, 3, 6, 6), network()
    twin = copy.deepcopy(model)
    MobileTL(blocks=2).attach(model)
    model.train()(x).square().sum().backward()
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    for block in (twin[2], twin[3]):
        block.requires_grad_(True)
        for norm in (block.norm1, block.norm2):  # type: ignore[union-attr]
            norm.eval()  # type: ignore[operator, union-attr]
            norm.weight.requires_grad_(False)  # type: ignore[union-attr, operator]
    twin[1].eval()
    try:
        F.hardswish = Step.apply  # type: ignore[assignment]
        twin(x).square().sum().backward()
    finally:
        F.hardswish = original
    wanted = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-3, atol=1e-3)


def test_with_relu6_gradients_are_exact() -> None:
    x = torch.rand(4, 3, 32, 32)
    torch.manual_seed(0)
    plain = LiteStages(2, norms=True)
    gradients = []
    for is_lean in (True, False):
        model = copy.deepcopy(plain)
        tuner = MobileTL(blocks=2)
        tuner.attach(model)
        if not is_lean:
            tuner.fold()
            for name, module in model.named_modules():
                if is_batch_norm(module) and name not in ("stages.1.0.project.norm", "stages.1.1.project.norm"):
                    module.train(False)
                    module.train = lambda mode=True, own=module: own  # type: ignore[method-assign]
        model.train()(x).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-3)


def test_the_delta_has_weights_and_statistics_and_goes_to_a_file_and_back(tmp_path: Path) -> None:
    model, x = network(), torch.randn(4, 3, 6, 6)
    base, kind = copy.deepcopy(model), type(model)
    tuner = MobileTL(blocks=1)
    tuner.attach(model)
    for parameter in tuner.trainable():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.train()(x)
    expected = model.eval()(x)
    delta = tuner.delta()
    assert {"3.norm3.running_mean", "3.norm3.running_var", "3.expand.weight", "3.norm1.bias"} <= set(delta.parts)
    assert not any(
        name.startswith(("0.", "1.", "2.")) or name in ("3.norm1.weight", "3.norm2.running_mean") for name in delta.parts
    )
    delta.save(tmp_path / "delta.safetensors")
    WeightDelta.load(tmp_path / "delta.safetensors").attach(base)
    torch.testing.assert_close(base.eval()(x), expected)
    tuner.fold()
    assert type(model) is kind
    assert torch.equal(model.eval()(x), expected)


def test_what_it_cannot_do_is_named() -> None:
    with pytest.raises(ConfigError, match="`blocks` must be at least 1; got 0"):
        MobileTL(blocks=0)
    with pytest.raises(ConfigError, match=r"Linear has none\. Choose a MobileNet"):
        MobileTL().attach(nn.Linear(2, 2))


def test_the_command_line_finds_it_by_its_card() -> None:
    tuning = plan_of(find_method("mobiletl", {"blocks": 2})).train.tuning
    assert tuning is not None
    tuner = tuning.build()
    assert isinstance(tuner, MobileTL)
    assert (tuner.blocks, tuner.exact) == (2, False)
