"""Features of several depths: what they hold, and what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.methods.tuning.frozen import Frozen
from graftwork.nn.backbones.depths import MOST_DEPTHS, pool_depths, read_depths, spread_depths

PICTURES = torch.randint(0, 256, (4, 50, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_pooling_is_mean_and_deviation_of_each_channel() -> None:
    maps = [torch.randn(2, 3, 4, 5), torch.randn(2, 1, 2, 2)]
    expected = np.concatenate(
        [part for states in maps for part in (states.numpy().mean((2, 3)), states.numpy().std((2, 3)))], axis=1
    )
    np.testing.assert_allclose(pool_depths(maps).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", range(1, 40))
def test_depths_are_spread_and_end_with_the_last(count: int) -> None:
    chosen = spread_depths(count)
    assert chosen[-1] == count - 1
    assert len(chosen) == min(count, MOST_DEPTHS)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0


@pytest.mark.parametrize(
    ("name", "added"),
    # The picture's three colours, and the widths of the stages, each with mean and deviation.
    [("resnet10t", 2 * (3 + 64 + 64 + 128 + 256 + 512)), ("vit_tiny_patch16_224", 2 * (3 + 5 * 192))],
)
def test_last_features_come_first_and_stay_what_they_were(name: str, added: int) -> None:
    pytest.importorskip("timm")
    from graftwork.nn.backbones.timm_loading import load_timm

    torch.manual_seed(0)
    backbone = load_timm(name, size=64, pretrained=False).eval()
    with torch.inference_mode():
        before, mark = backbone({"image": PICTURES}), backbone.fingerprint()
        Frozen(depths=True).attach(backbone)
        after = backbone({"image": PICTURES})
    width = before.shape[1]
    assert after.shape == (4, width + added)
    assert backbone.feature_shape.width == width + added
    torch.testing.assert_close(after[:, :width], before)
    torch.testing.assert_close(after[:, width : width + 3], backbone.prepare({"image": PICTURES}).mean(dim=(2, 3)))
    assert backbone.fingerprint() != mark, "stored features of the last layer must not be taken for these"


def test_maps_and_other_models_stay_as_they_are() -> None:
    assert not read_depths(nn.Linear(2, 2))
    pytest.importorskip("timm")
    from graftwork.nn.backbones.timm_loading import load_timm

    backbone = load_timm("resnet10t", size=64, pretrained=False, layout="map").eval()
    shape = backbone.feature_shape
    Frozen(depths=True).attach(backbone)
    assert backbone.feature_shape == shape
