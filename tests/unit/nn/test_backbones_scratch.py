from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import InputSpec
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.mlp import TableBackbone
from graftwork.nn.backbones.scratch import scratch_backbone
from graftwork.nn.backbones.table_net import TableNet
from graftwork.nn.backbones.text import TextBackbone

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Tensor]]] = {
    "table": (
        "table",
        {"num_numeric": 3, "cardinalities": [4, 2]},
        {"numeric": torch.randn(7, 3), "categorical": torch.randint(0, 2, (7, 2))},
    ),
    "numbers": ("table", {"num_numeric": 3, "cardinalities": []}, {"numeric": torch.randn(7, 3)}),
    "categories": ("table", {"num_numeric": 0, "cardinalities": [4]}, {"categorical": torch.randint(0, 4, (7, 1))}),
    "embedded": (
        "table",
        {"num_numeric": 3, "cardinalities": [4, 20, 11, 2], "trunk": "embedded"},
        {"numeric": torch.randn(7, 3), "categorical": torch.randint(0, 2, (7, 4))},
    ),
    "embedded numbers": ("table", {"num_numeric": 3, "trunk": "embedded"}, {"numeric": torch.randn(7, 3)}),
    "embedded categories": (
        "table",
        {"num_numeric": 0, "cardinalities": [30], "trunk": "embedded"},
        {"categorical": torch.randint(0, 30, (7, 1))},
    ),
    "image32": ("image", {"image_size": 32}, {"image": torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)}),
    "image72": ("image", {"image_size": 72}, {"image": torch.randint(0, 256, (7, 72, 72, 3), dtype=torch.uint8)}),
    "map": (
        "image",
        {"image_size": 32, "dense": True},
        {"image": torch.randint(0, 256, (7, 32, 32, 3), dtype=torch.uint8)},
    ),
    "text": ("text", {"vocabulary_size": 20}, {"tokens": torch.randint(0, 20, (7, 6))}),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> tuple[Any, Mapping[str, Tensor]]:
    kind, sizes, inputs = CASES[request.param]
    return trunk(kind, sizes).eval(), inputs


def trunk(kind: str, sizes: Mapping[str, Any]) -> Backbone:
    own = {key: size for key, size in sizes.items() if key != "dense"}
    return scratch_backbone({"x": InputSpec(kind=kind, sizes=own)}, dense=bool(sizes.get("dense")))


def test_features_have_the_declared_shape(case: tuple[Any, Mapping[str, Tensor]]) -> None:
    backbone, inputs = case
    shape = backbone.feature_shape
    features = backbone(inputs)
    assert features.shape == (7, shape.width, *shape.extent)
    assert bool(torch.isfinite(features).all())


def test_rows_do_not_see_each_other(case: tuple[Any, Mapping[str, Tensor]]) -> None:
    backbone, inputs = case
    whole = backbone(inputs)
    single = backbone({name: tensor[2:3] for name, tensor in inputs.items()})
    torch.testing.assert_close(whole[2:3], single, rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(case: tuple[Any, Mapping[str, Tensor]]) -> None:
    backbone, inputs = case
    backbone(inputs).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in backbone.parameters())


def test_codes_that_were_never_seen_count_as_missing() -> None:
    backbone = TableBackbone(0, [3, 2]).eval()
    strange = backbone({"categorical": torch.tensor([[99, -5]])})
    torch.testing.assert_close(strange, backbone({"categorical": torch.tensor([[0, 0]])}))


def test_columns_have_their_own_embeddings() -> None:
    backbone = TableBackbone(0, [3, 3]).eval()
    assert not torch.allclose(
        backbone({"categorical": torch.tensor([[1, 2]])}), backbone({"categorical": torch.tensor([[2, 1]])})
    )


def test_an_absurd_number_stays_finite() -> None:
    backbone = TableBackbone(2).eval()
    torch.testing.assert_close(
        backbone({"numeric": torch.tensor([[1e30, 0.0]])}), backbone({"numeric": torch.tensor([[10.0, 0.0]])})
    )


def test_a_table_without_columns_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one feature column besides the targets"):
        TableBackbone(0)


def test_a_table_that_names_no_trunk_has_the_one_that_stored_models_and_evidence_were_made_with() -> None:
    torch.manual_seed(0)
    found = trunk("table", {"num_numeric": 3, "cardinalities": [4]})
    torch.manual_seed(0)
    assert found.fingerprint() == TableBackbone(3, [4]).fingerprint()
    assert type(trunk("table", {"num_numeric": 3, "cardinalities": [4], "trunk": "embedded"})) is TableNet


def test_an_unknown_trunk_of_a_table_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no trunk 'embeded' for tables; there are residual, embedded\. Did you mean"):
        trunk("table", {"num_numeric": 3, "trunk": "embeded"})


def test_the_text_trunk_reads_the_beginning_of_long_texts() -> None:
    torch.manual_seed(0)
    trunk = TextBackbone(10, longest=4).eval()
    tokens = torch.randint(1, 10, (3, 9))
    torch.testing.assert_close(trunk({"tokens": tokens}), trunk({"tokens": tokens[:, :4]}))


def test_padding_changes_nothing() -> None:
    backbone = TextBackbone(10).eval()
    short = backbone({"tokens": torch.tensor([[4, 5, 0]])})
    torch.testing.assert_close(short, backbone({"tokens": torch.tensor([[4, 5, 0, 0, 0, 0]])}))
    assert bool(torch.isfinite(backbone({"tokens": torch.zeros(1, 4, dtype=torch.int64)})).all())


@pytest.mark.parametrize(
    ("size", "factor"), [(16, 1), (32, 1), (36, 1), (48, 2), (64, 2), (72, 3), (96, 4), (100, 4), (50, 2), (97, 4)]
)
def test_large_pictures_are_averaged_down(size: int, factor: int) -> None:
    backbone = ConvBackbone(size).eval()
    assert backbone.factor == factor
    assert backbone({"image": torch.zeros(1, size, size, 3, dtype=torch.uint8)}).shape == (1, backbone.feature_shape.width)


def test_the_number_of_parameters_stays_small() -> None:
    for kind, sizes, _ in CASES.values():
        if kind != "text":
            assert sum(parameter.numel() for parameter in trunk(kind, sizes).parameters()) < 400_000


def test_unknown_kinds_and_missing_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match="no input kind 'sound'; there are image, series, table, text"):
        trunk("sound", {})
    with pytest.raises(ConfigError, match=r"image trunk needs the size 'image_size'"):
        trunk("image", {"num_numeric": 3})
    with pytest.raises(ConfigError, match="describes no input"):
        scratch_backbone({})
