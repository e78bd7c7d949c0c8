from __future__ import annotations

import torch
from torch import nn

from graftwork.nn.backbones.cifar_resnet import CifarResNet
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.vit import ViTBackbone
from graftwork.nn.layer_paths import feature_layers, placed_layers

PICTURES = {"image": torch.zeros(3, 16, 16, 3, dtype=torch.uint8)}


def test_layers_come_in_the_order_in_which_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)
            self.idle, self.norm = nn.Linear(3, 3), nn.LayerNorm(4)

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.last(torch.relu(self.norm(self.first(rows))))

    network = Backwards()
    found = feature_layers(network, lambda: network(torch.zeros(5, 3)), 5)
    assert found == {"first": (5, 4), "norm": (5, 4), "last": (5, 2)}
    assert list(found) == ["first", "norm", "last"]


def test_stages_and_blocks_are_found_where_a_network_keeps_them() -> None:
    small = ConvBackbone(16, channels=(4, 8, 8, 8))
    assert list(placed_layers(small, lambda: small(PICTURES), 3)) == ["stages.0", "stages.1", "stages.2"]
    residual = CifarResNet(8, channels=(4, 4, 8))
    assert placed_layers(residual, lambda: residual(PICTURES), 3)["stages.2"] == (3, 8, 4, 4)
    vit = ViTBackbone(16, width=8, depth=3, num_heads=2)
    # Layers inside a block are no blocks.
    assert placed_layers(vit, lambda: vit(PICTURES), 3) == {f"blocks.{number}": (3, 16, 8) for number in range(3)}


def test_without_lists_all_modules_with_places_count() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    found = placed_layers(network, lambda: network(torch.zeros(2, 3, 4, 4)), 2)
    assert list(found) == ["0", "1"]
