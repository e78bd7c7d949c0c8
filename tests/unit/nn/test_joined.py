"""Several trunks side by side."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec, image_input, table_input
from graftwork.nn.backbones.catalog import backbones_of_inputs
from graftwork.nn.backbones.joined import JoinedBackbone
from graftwork.nn.backbones.scratch import scratch_backbone

INPUTS = {
    "table": InputSpec(
        kind="table", sizes=table_input(2, [3])["table"].sizes, arrays={"numeric": "numeric", "categorical": "categorical"}
    ),
    "text": InputSpec(kind="text", sizes={"vocabulary_size": 9}, arrays={"tokens": "tokens"}),
    "image": InputSpec(kind="image", sizes={"image_size": 16}, arrays={"image": "image"}),
    "image_2": InputSpec(kind="image", sizes={"image_size": 16}, arrays={"image": "image_2.image"}),
}


def rows(number: int = 5) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    picture = (number, 16, 16, 3)
    return {
        "numeric": torch.randn(number, 2, generator=draw),
        "categorical": torch.arange(number)[:, None] % 3,
        "tokens": torch.randint(0, 9, (number, 6), generator=draw),
        "image": torch.randint(0, 256, picture, dtype=torch.uint8, generator=draw),
        "image_2.image": torch.randint(0, 256, picture, dtype=torch.uint8, generator=draw),
    }


def test_features_depend_on_every_input_and_on_nothing_else() -> None:
    torch.manual_seed(0)
    backbone = scratch_backbone(INPUTS).eval()
    assert isinstance(backbone, JoinedBackbone)
    inputs = rows()
    features = backbone(inputs)
    assert features.shape == (5, backbone.feature_shape.width)
    for name, array in inputs.items():
        other = {**inputs, name: array.roll(1, dims=0)}
        assert not torch.allclose(backbone(other), features), name
    torch.testing.assert_close(backbone({**inputs, "further": torch.zeros(5)}), features)


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    backbone = scratch_backbone(INPUTS)
    backbone(rows(8)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in backbone.parameters())


def test_maps_need_a_picture_alone() -> None:
    with pytest.raises(ConfigError, match="'image' gives 'map' features; of several inputs, each must give a vector"):
        scratch_backbone(INPUTS, dense=True)
    assert scratch_backbone(image_input(16), dense=True).feature_shape.layout == "map"


def test_each_input_gets_the_backbone_of_its_kind() -> None:
    assert backbones_of_inputs("minilm,efficientnet_lite0@96", INPUTS) == {
        "table": "scratch",
        "text": "minilm",
        "image": "efficientnet_lite0@96",
        "image_2": "efficientnet_lite0@96",
    }
    assert set(backbones_of_inputs("scratch", INPUTS).values()) == {"scratch"}
    with pytest.raises(ConfigError, match="'minilm' and 'hf:x' both read text data"):
        backbones_of_inputs("minilm,hf:x", INPUTS)
    with pytest.raises(ConfigError, match="'minilm' reads text data, but the suite has inputs of the kind image, table"):
        backbones_of_inputs("minilm,efficientnet_lite0", {**table_input(2), **image_input(16)})
