from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.unet import PictureEncoder, ResidualBlock, UNet, embed_time


def randomise(module: nn.Module) -> None:
    """Fresh blocks are their shortcuts; give every weight a value, so that everything reaches the output."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def test_times_are_embedded_as_waves() -> None:
    found = embed_time(torch.tensor([0, 7]), 4)
    wanted = [[0.0, 0.0, 1.0, 1.0], [math.sin(7), math.sin(0.07), math.cos(7), math.cos(0.07)]]
    torch.testing.assert_close(found, torch.tensor(wanted))


def test_a_fresh_block_is_its_shortcut() -> None:
    states = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ResidualBlock(8, 8, 16)(states, torch.randn(2, 16)), states)


def test_features_halve_from_scale_to_scale() -> None:
    scales = PictureEncoder(3, (8, 12, 16), patch=2)(torch.randn(2, 3, 24, 24))
    assert [tuple(scale.shape) for scale in scales] == [(2, 8, 12, 12), (2, 12, 6, 6), (2, 16, 3, 3)]


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("widths", [(8,), (8, 12), (8, 12, 16)])
def test_pictures_keep_their_size(patch: int, widths: tuple[int, ...]) -> None:
    network = UNet(3, 2, widths, patch=patch)
    assert network(torch.randn(2, 3, 16, 24), torch.tensor([0, 999])).shape == (2, 2, 16, 24)
    assert UNet(1, 1, widths, patch=patch, has_time=False)(torch.randn(1, 1, 8, 8)).shape == (1, 1, 8, 8)


def test_time_and_every_scale_of_the_condition_reach_the_output() -> None:
    encoder, network = PictureEncoder(3, (8, 12)), UNet(3, 3, (8, 12), condition_widths=(8, 12))
    randomise(network)
    picture, time = torch.randn(2, 3, 8, 8), torch.tensor([3, 500])
    scales = encoder(torch.randn(2, 3, 8, 8))
    before = network(picture, time, scales)
    assert not torch.allclose(before, network(picture, time + 100, scales))
    for index in range(2):
        changed = [scale + (place == index) for place, scale in enumerate(scales)]
        assert not torch.allclose(before, network(picture, time, changed))


def test_rows_do_not_see_each_other() -> None:
    network = UNet(3, 3, (8, 12))
    randomise(network)
    picture, time = torch.randn(3, 3, 8, 8), torch.tensor([1, 20, 300])
    torch.testing.assert_close(network(picture, time)[1:2], network(picture[1:2], time[1:2]), atol=1e-5, rtol=1e-4)


def test_everything_learns() -> None:
    encoder, network = PictureEncoder(3, (8, 12), patch=2), UNet(1, 1, (8, 12), condition_widths=(8, 12), patch=2)
    for module in (encoder, network):
        randomise(module)
    network(torch.randn(2, 1, 8, 8), torch.tensor([1, 2]), encoder(torch.randn(2, 3, 8, 8))).square().sum().backward()
    named = [*encoder.named_parameters(), *network.named_parameters()]
    assert [name for name, parameter in named if parameter.grad is None or not parameter.grad.abs().sum() > 0] == []


def test_wrong_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match="one width for each scale"):
        UNet(3, 3, ())
    with pytest.raises(ConfigError, match="one of its condition"):
        UNet(3, 3, (8, 12), condition_widths=(8,))
