from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.nn.mlp import ResidualMLP, mlp


def test_plain_layers_and_dropout_between_them() -> None:
    layers = mlp([3, 5, 5, 2], dropout=0.5)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.GELU, nn.Dropout, nn.Linear]
    assert layers(torch.zeros(4, 3)).shape == (4, 2)


def test_one_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs an input and an output width; got \[3\]"):
        mlp([3])


def test_residual_blocks_add_to_the_projection() -> None:
    trunk = ResidualMLP(3, 8, 2, dropout=0.0)
    inputs = torch.randn(5, 3)
    with torch.no_grad():
        for block in trunk.blocks:
            block[-1].weight.zero_()
            block[-1].bias.zero_()
    torch.testing.assert_close(trunk(inputs), trunk.norm(trunk.project(inputs)))
