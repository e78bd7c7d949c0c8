"""The own vision transformer: shapes, parts, errors."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.vit import ViTBackbone


@pytest.fixture
def pictures() -> dict[str, torch.Tensor]:
    return {"image": torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))}


def test_map_and_tokens_hold_the_same_values(pictures: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(0)
    tokens = ViTBackbone(16, width=8, depth=2, num_heads=2)
    torch.manual_seed(0)
    maps = ViTBackbone(16, width=8, depth=2, num_heads=2, feature_map=True)
    assert tokens.feature_shape.extent == (16,)
    assert maps.feature_shape.extent == (4, 4)
    seen, mapped = tokens(pictures), maps(pictures)
    assert mapped.shape == (2, 8, 4, 4)
    # Token 6 is the third patch of the second row.
    torch.testing.assert_close(seen[:, 6], mapped[:, :, 1, 2])


def test_forward_is_its_parts(pictures: dict[str, torch.Tensor]) -> None:
    model = ViTBackbone(16, width=8, depth=3, num_heads=2)
    state = model.embed(pictures)
    for block in model.stages():
        state = block(state)
    assert torch.equal(model.finish(state), model(pictures))


def test_a_patch_is_read_at_its_place() -> None:
    model = ViTBackbone(8, width=8, depth=1, num_heads=2)
    black = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    lit = black.clone()
    lit[:, 5, 1] = 255  # row 5, column 1: patch (1, 0), token 2
    changed = (model.embed({"image": lit}) - model.embed({"image": black})).abs().sum(dim=-1)[0] > 0
    assert changed.tolist() == [False, False, True, False]


def test_a_picture_must_divide_into_patches() -> None:
    with pytest.raises(ConfigError, match="multiple of `patch`; got 30 and 4"):
        ViTBackbone(30)
