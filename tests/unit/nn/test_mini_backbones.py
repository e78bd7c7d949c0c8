"""The nursery's two networks: pictures of any size, other working sizes, features of several depths."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.optional import has
from graftwork.nn.backbones.lite_stages import LiteStages
from graftwork.nn.backbones.mini_conv import MiniConv
from graftwork.nn.backbones.mini_vit import MiniViT
from graftwork.nn.backbones.picture_size import resized
from graftwork.nn.taps import tapped

CONV: dict[str, Any] = {"width": 8}
VIT: dict[str, Any] = {"width": 8, "depth": 6, "num_heads": 2}


@pytest.mark.parametrize("model", [MiniViT(**VIT), MiniConv(**CONV)], ids=["vit", "conv"])
@pytest.mark.parametrize("side", [8, 24, 64, 100, 224])
def test_pictures_of_any_size(model: MiniViT | MiniConv, side: int) -> None:
    assert model({"image": torch.zeros(2, side, side, 3, dtype=torch.uint8)}).shape == (2, 8)


def test_large_pictures_lose_no_pixels() -> None:
    # Bilinear weights alone would read two of eight columns.
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::8] = 8.0
    torch.testing.assert_close(resized(stripes, 8), torch.ones(1, 1, 8, 8))
    same = torch.rand(1, 3, 8, 8)
    assert resized(same, 8) is same


@pytest.mark.parametrize("kind", [MiniViT, MiniConv])
def test_the_fingerprint_names_size_layout_and_depths(kind: type[MiniViT] | type[MiniConv]) -> None:
    settings = VIT if kind is MiniViT else CONV
    torch.manual_seed(0)
    first = kind(**settings)
    other = kind(size=32, **settings)
    other.load_state_dict(first.state_dict())
    assert first.fingerprint() != other.fingerprint()
    other.set_working_size(64)
    assert first.fingerprint() == other.fingerprint()
    other.read_depths()
    assert first.fingerprint() != other.fingerprint()


def test_positions_follow_the_working_size() -> None:
    torch.manual_seed(0)
    model = MiniViT(**VIT).eval()
    with torch.no_grad():
        model.positions.fill_(0.5)  # the same everywhere stays so
        model.set_working_size(32)
        plain = model.patches(resized(torch.full((1, 3, 64, 64), 255.0), 32) / 127.5 - 1.0)
        tokens = model.embed({"image": torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)})
    assert tokens.shape == (1, 16, 8)
    torch.testing.assert_close(tokens, plain + 0.5)
    assert model.block_shapes()[0].extent == (16,)


@pytest.mark.parametrize(("kind", "size"), [(MiniViT, 60), (MiniViT, 4), (MiniConv, 16), (MiniConv, 40)])
def test_sizes_that_do_not_work_are_named(kind: type[MiniViT] | type[MiniConv], size: int) -> None:
    with pytest.raises(ConfigError, match=f"got {size}"):
        kind(size=size)


def test_settings_that_do_not_work_are_named() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        MiniConv(width=0)
    with pytest.raises(ConfigError, match="from 1 to 5 stages; got 6"):
        LiteStages(6, norms=True)


@pytest.mark.skipif(not has("timm"), reason="needs timm")
@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("count", [3, 5])
def test_the_first_stages_are_those_of_timm(count: int, norms: bool) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0).eval()
    for module in network.modules():  # norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = 0.1 * torch.randn(module.num_features)
            module.running_var = 0.5 + torch.rand(module.num_features)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    stages = LiteStages(count, norms=norms).eval()
    stages.begin_from(network)
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in stages.modules()) is norms
    picture = torch.rand(2, 3, 64, 64) * 2.0 - 1.0
    with torch.no_grad():
        _, maps = network.forward_intermediates(picture, indices=[{3: 2, 5: 3}[count]], output_fmt="NCHW")
        torch.testing.assert_close(stages(picture), maps[0], rtol=1e-3, atol=1e-3)


def test_the_new_blocks_begin_with_what_the_first_stages_see() -> None:
    torch.manual_seed(0)
    model = MiniConv(**CONV).eval()
    inputs = {"image": torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)}
    with torch.no_grad(), tapped(model, [4, 5, 6]) as found:
        model(inputs)
        shortcut = model.tail[0].shortcut(found[4]).relu()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(found[5], shortcut)
    torch.testing.assert_close(found[6], shortcut)


@pytest.mark.parametrize("model", [MiniViT(**VIT), MiniConv(**CONV)], ids=["vit", "conv"])
def test_depths_stand_behind_the_features(model: MiniViT | MiniConv) -> None:
    model.eval()
    inputs = {"image": torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)}
    with torch.no_grad():
        plain = model(inputs)
        assert model.read_depths()
        wide = model(inputs)
        assert wide.shape == (2, model.feature_shape.width)
        torch.testing.assert_close(wide[:, :8], plain)
        with tapped(model, [-1]) as found:
            model(inputs)
    last = found[-1].transpose(1, 2).unflatten(2, (8, 8)) if isinstance(model, MiniViT) else found[-1]
    torch.testing.assert_close(wide[:, -16:-8], last.mean(dim=(2, 3)))
    model.depths = []
    model.set_working_size(64)


def test_maps_have_no_depths() -> None:
    assert not MiniViT(layout="map", **VIT).read_depths()
    assert not MiniConv(layout="map", **CONV).read_depths()
