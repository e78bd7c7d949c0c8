"""The last blocks of networks of all layouts give what the whole network gives."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import BlockBackbone
from graftwork.nn.backbones.class_token_vit import ClassTokenViT
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.swin import SwinBackbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.last_stage import LastStage
from graftwork.nn.token_projector import as_tokens

PICTURES = {"image": torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)}


def networks() -> dict[str, BlockBackbone]:
    torch.manual_seed(0)
    return {
        "vit": ViTBackbone(32, patch=8, width=8, depth=3, num_heads=2),
        "class token": ClassTokenViT(32, patch=8, width=8, depth=3, num_heads=2),
        "swin": SwinBackbone(32, patch=4, widths=[8, 16], depths=[1, 2], num_heads=[2, 2], window=4),
        "conv": MiniConv(size=32, width=8),
    }


@pytest.mark.parametrize("name", ["vit", "class token", "swin", "conv"])
def test_the_networks_own_tokens_end_where_the_network_ends(name: str) -> None:
    backbone = networks()[name].eval().requires_grad_(False)
    stage = LastStage(backbone, 2, PICTURES)
    with torch.no_grad():
        states = backbone.embed(PICTURES)
        for number in range(len(backbone.block_list()) - 2):
            states = backbone.run_block(number, states, PICTURES)
    tokens = states.flatten(1, 2) if name == "swin" else as_tokens(states)
    assert tuple(tokens.shape[1:]) == stage.entry
    end = stage.run(tokens, PICTURES)
    assert tuple(end.shape[1:]) == stage.exit
    torch.testing.assert_close(stage.place(end), stage.goal(PICTURES))
    assert stage.goal(PICTURES).ndim == 4


def test_gradients_reach_the_tokens_and_no_weight() -> None:
    backbone = networks()["class token"].eval().requires_grad_(False)
    stage = LastStage(backbone, 1, PICTURES)
    tokens = torch.randn(2, *stage.entry, requires_grad=True)
    stage.place(stage.run(tokens, PICTURES)).square().sum().backward()
    assert tokens.grad is not None
    assert bool((tokens.grad != 0).any())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert stage.entry == (17, 8), "the class token is asked for as well"


def test_more_blocks_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="stage must be from 1 to 3, the number of blocks of the teacher; got 4"):
        LastStage(networks()["vit"], 4, PICTURES)
