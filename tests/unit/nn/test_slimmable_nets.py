from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input, text_input
from graftwork.core.records import TaskSpec
from graftwork.nn.slimmable import materialise
from graftwork.nn.slimmable_nets import ConvEncoder, DenseDecoder, GlobalDecoder, TableEncoder, build_encoder, set_width

RATIOS = (0.5, 1.0)
DEPTH = TaskSpec(name="depth", kind="dense_regression", size=2)
KIND = TaskSpec(name="kind", kind="multiclass", size=3)


def pictures(side: int) -> dict[str, torch.Tensor]:
    return {"image": torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


@pytest.mark.parametrize("ratio", RATIOS)
def test_pictures_become_maps_of_the_active_width(ratio: float) -> None:
    encoder = ConvEncoder(24, RATIOS)
    set_width(encoder, ratio)
    assert encoder(pictures(24)).shape == (2, 64 * ratio, 6, 6)


def test_large_pictures_are_averaged_first() -> None:
    encoder = ConvEncoder(96, RATIOS)
    assert encoder.factor == 4
    flat = {"image": torch.full((1, 96, 96, 3), 90, dtype=torch.uint8)}
    torch.testing.assert_close(encoder(flat), encoder({"image": flat["image"][:, :24, :24].repeat(1, 4, 4, 1)}))


@pytest.mark.parametrize("size", [(24, 24), (17, 22)])
@pytest.mark.parametrize(("ratio", "in_ratio"), [(0.5, 1.0), (1.0, 0.5)])
def test_dense_decoders_read_any_encoder_width(size: tuple[int, int], ratio: float, in_ratio: float) -> None:
    decoder = DenseDecoder(16, DEPTH, RATIOS, size)
    decoder.set_width(ratio, in_ratio)
    features = torch.randn(3, int(16 * in_ratio), 6, 6)
    found = decoder(features)
    assert found.shape == (3, 2, *size)
    assert torch.equal(materialise(decoder)(features), found)


@pytest.mark.parametrize("is_map", [True, False])
def test_global_decoders_read_maps_and_vectors(is_map: bool) -> None:
    decoder = GlobalDecoder(16, KIND, RATIOS, is_map=is_map)
    decoder.set_width(0.5, 1.0)
    features = torch.randn(3, 16, 4, 4) if is_map else torch.randn(3, 16)
    assert decoder(features).shape == (3, 3)
    assert torch.equal(materialise(decoder)(features), decoder(features))


def test_tables_become_vectors() -> None:
    encoder = build_encoder(table_input(2, [3]), RATIOS, widths=(32, 16))
    assert isinstance(encoder, TableEncoder)
    table = {"numeric": torch.tensor([[0.5, 1e9]]), "categorical": torch.tensor([[2]])}
    set_width(encoder, 0.5)
    found = encoder(table)
    assert found.shape == (1, 8)
    torch.testing.assert_close(found, encoder({**table, "numeric": torch.tensor([[0.5, 10.0]])}))


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="reads one input of the kind 'table'; this suite has: text \\(text\\)"):
        build_encoder(text_input(9, 4), RATIOS)
    with pytest.raises(ConfigError, match="a stride each"):
        ConvEncoder(24, RATIOS, channels=(8, 8), strides=(1,))
