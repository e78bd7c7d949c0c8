"""Any timm model behind the seam, with clear words where there is no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.nn.backbones.timm_bridge import TimmBackbone
from graftwork.nn.backbones.timm_folder import load_timm_folder
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


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architecture": 3}, "architecture is 3"), ([], r"it holds \[\]; expected an object"), ({}, "architecture is None"),
        *(({"architecture": "resnet10t", "num_classes": value}, "num_classes is ") for value in ("x", None, -1, 1.5, True, 10**9, [])),
        *(({"architecture": "resnet10t", "pretrained_cfg": value}, "pretrained_cfg is ") for value in ("x", 3, [1])),
        *(({"architecture": "resnet10t", "pretrained_cfg": {"input_size": value}}, r"pretrained_cfg\.input_size is ") for value in ([], 3, [3, 0, 0], "x", None, [3, 10**9, 10**9])),
        ({"architecture": "resnet10t", "pretrained_cfg": {"mean": [1]}}, r"pretrained_cfg\.mean"), ({"architecture": "resnet10t", "pretrained_cfg": {"std": [0, 1, 1]}}, "std"),
        *(({"architecture": "resnet10t", "pretrained_cfg": {key: [0.5, 0.5, value]}}, rf"pretrained_cfg\.{key} is ")
          for key in ("mean", "std") for value in (10**400, 1e300, float("nan"), float("inf"), -float("inf"), True, "0.5", None)),
        ({"architecture": "resnet10t", "pretrained_cfg": {"std": [1, 1, -0.5]}}, r"pretrained_cfg\.std is .*three numbers above 0"),
    ],
)  # fmt: skip
def test_a_damaged_description_of_a_folder_names_file_and_value(tmp_path: Path, config: Any, words: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileFormatError, match=rf"config\.json is damaged: .*{words}.*Save the model again"):
        load_timm_folder(tmp_path)


def test_weights_that_a_folder_names_are_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def create(*_: object, **__: object) -> None:
        raise AssertionError("it would be downloaded")

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr("socket.socket.connect", create)
    for name in ("resnet18", "resnet34@64"):
        with pytest.raises(ConfigError, match=r"not in the cache of this machine.*graftwork backbones timm:resnet"):
            build_backbone(f"timm:{name}", local_only=True)


def test_what_is_cached_is_loaded_without_asking_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm
    from huggingface_hub import constants

    seen: list[bool] = []
    plain = timm.create_model

    def create(name: str, *, pretrained: bool, **settings: Any) -> nn.Module:
        seen.append(constants.HF_HUB_OFFLINE)
        model: nn.Module = plain(name, pretrained=False, **settings)
        return model

    monkeypatch.setattr(timm, "create_model", create)
    before = constants.HF_HUB_OFFLINE
    for cached in (True, False):
        monkeypatch.setattr("graftwork.nn.backbones.timm_loading.timm_is_cached", lambda name, cached=cached: cached)
        load_timm("resnet10t")
    assert seen == [True, before]
    assert constants.HF_HUB_OFFLINE is before


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
