from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.cifar_resnet import BasicBlock, CifarResNet


@pytest.mark.parametrize("depth", [8, 14, 26])
def test_depth_counts_the_convolutions_and_the_output_layer(depth: int) -> None:
    model = CifarResNet(depth, channels=(2, 3, 4))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    assert len(convolutions) + 1 == depth
    assert all(module.bias is None for module in convolutions)


def test_features_are_means_of_a_map_of_a_quarter() -> None:
    model = CifarResNet(8, channels=(2, 3, 4)).eval()
    maps: list[torch.Tensor] = []
    model.stages[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
    features = model({"image": torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8)})
    assert model.feature_shape.width == 4
    assert maps[0].shape == (5, 4, 4, 4)
    assert torch.equal(features, maps[0].mean(dim=(2, 3)))


def test_a_resnet_of_the_paper_has_its_number_of_parameters() -> None:
    model = CifarResNet(20)
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64  # the paper's shortcuts have none
    assert sum(parameter.numel() for parameter in model.parameters()) - shortcuts + 64 * 10 + 10 == 269_722


def test_a_block_adds_its_input() -> None:
    block = BasicBlock(3, 3).eval()
    nn.init.zeros_(block.norm2.weight)
    state = torch.rand(2, 3, 4, 4)
    assert torch.equal(block(state), state)
    assert BasicBlock(3, 5, stride=2)(state).shape == (2, 5, 2, 2)


def test_kernels_begin_with_kaimings_deviation() -> None:
    torch.manual_seed(0)
    weight = CifarResNet(8, channels=(64, 64, 64)).stages[0][0].conv1.weight  # type: ignore[index, union-attr]
    assert float(weight.detach().std()) == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)


@pytest.mark.parametrize("settings", [{"depth": 10}, {"depth": 2}, {"channels": (4, 4)}, {"channels": (4, 0, 4)}])
def test_other_shapes_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="6n\\+2|three numbers"):
        CifarResNet(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [3, 16])
def test_shortcuts_are_strided_convolutions_however_narrow(width: int) -> None:
    block = BasicBlock(width, 2 * width, stride=2)
    convolution = block.shortcut[0]  # type: ignore[index]
    state = torch.randn(2, width, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    # Contiguous: the other layout is what is to be avoided.
    expected = nn.functional.conv2d(state.contiguous(), convolution.weight, stride=2)
    torch.testing.assert_close(convolution(state), expected)
    found = torch.autograd.grad(convolution(state).square().sum(), [state, convolution.weight])
    torch.testing.assert_close(found, torch.autograd.grad(expected.square().sum(), [state, convolution.weight]))
