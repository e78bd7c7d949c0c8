"""Any timm model behind the seam, with clear words where there is no network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.timm_bridge import TimmBackbone
from graftwork.nn.backbones.timm_loading import load_timm

pytest.importorskip("timm")
PICTURES = torch.randint(0, 256, (2, 50, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "swin_s3_tiny_224"])
def test_families_of_models(name: str) -> None:
    if name.startswith("swin"):
        backbone = load_timm(name, pretrained=False, layout="map").eval()
        features = backbone({"image": PICTURES})
        assert features.shape == (2, 768, 7, 7)  # channels come second, although this family keeps them last
        assert backbone.feature_shape.extent == (7, 7)
        return
    backbone = load_timm(name, size=64, pretrained=False).eval()
    features = backbone({"image": PICTURES})
    assert features.shape == (2, backbone.feature_shape.width)
    assert features.isfinite().all()


def test_position_embeddings_forbid_another_size_afterwards() -> None:
    backbone = load_timm("vit_tiny_patch16_224", size=64, pretrained=False).eval()
    before = backbone({"image": PICTURES})
    with pytest.raises(ConfigError, match=r"cannot work at 96 pixels .*timm:NAME@96"):
        backbone.set_working_size(96)
    assert torch.equal(backbone({"image": PICTURES}), before)


def test_tokens_are_no_map() -> None:
    with pytest.raises(ConfigError, match="no feature map"):
        load_timm("mixer_s32_224", pretrained=False, layout="map")


def test_a_vision_transformer_has_a_map_of_its_patches() -> None:
    backbone = load_timm("vit_tiny_patch16_224", size=64, pretrained=False, layout="map").eval()
    features = backbone({"image": PICTURES})
    assert features.shape == (2, 192, 4, 4)
    assert backbone.feature_shape.extent == (4, 4)
    tokens = backbone.model.forward_features(backbone.prepare({"image": PICTURES}))
    torch.testing.assert_close(features[:, :, 1, 2], tokens[:, 1 + 6])  # the class token comes first


def test_memory_layout_changes_speed_only() -> None:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    state = model.state_dict()
    first = TimmBackbone(model, size=64, channels_last=True).eval()({"image": PICTURES})
    plain = timm.create_model("resnet10t", pretrained=False, num_classes=0)
    plain.load_state_dict(state)
    second = TimmBackbone(plain, size=64, channels_last=False).eval()({"image": PICTURES})
    torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-4)


def test_unknown_names_and_unreachable_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"timm has no model 'resnet18x'\. Nearest: .*resnet18"):
        load_timm("resnet18x")
    import timm

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ConfigError, match=r"'resnet18' could not be loaded \(OSError: no route to host\)(.|\n)*graftwork backbones"
    ):
        load_timm("resnet18")


class Odd(nn.Module):
    """What a timm model has, and pictures of 96 pixels break it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout())
        self.devices: set[str] = set()

    def forward_features(self, pictures: torch.Tensor) -> torch.Tensor:
        self.devices.add(pictures.device.type)
        if pictures.shape[-1] == 96:
            raise RuntimeError("96 pixels")
        assert not self.inner.training
        return self.inner(pictures)


def test_measuring_leaves_all_modes_as_they_were_and_works_on_the_models_device() -> None:
    model = Odd().train()
    model.inner.eval()
    backbone = TimmBackbone(model, size=32, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0), layout="map")
    assert (model.training, model.inner.training) == (True, False)
    with pytest.raises(ConfigError, match="cannot work at 96 pixels"):
        backbone.set_working_size(96)
    assert (model.training, model.inner.training) == (True, False)
    model.devices.clear()
    backbone.to("meta").set_working_size(64)
    assert model.devices == {"meta"}
