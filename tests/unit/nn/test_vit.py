"""The own vision transformer: shapes, parts, errors."""

from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import image_input, table_input
from graftwork.nn.backbones.cifar_resnet import CifarResNet
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.vit import ViTBackbone, block_trunk, scratch_vit


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
    for block in model.block_list():
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
    with pytest.raises(ConfigError, match="`working_size` must be a multiple of `patch`; got 18 and 4"):
        ViTBackbone(32, working_size=18)


def test_large_pictures_are_averaged_by_area() -> None:
    """6 pixels to 4: each of the new pixels covers one and a half of the old ones, down and across."""
    torch.manual_seed(0)
    large, small = (
        ViTBackbone(6, patch=2, width=8, depth=0, num_heads=2, working_size=4),
        ViTBackbone(4, patch=2, width=8, depth=0, num_heads=2),
    )
    small.load_state_dict(large.state_dict())
    picture = torch.randint(0, 256, (1, 6, 6, 3), dtype=torch.uint8)
    share = torch.tensor(
        [[2 / 3, 1 / 3, 0, 0, 0, 0], [0, 1 / 3, 2 / 3, 0, 0, 0], [0, 0, 0, 2 / 3, 1 / 3, 0], [0, 0, 0, 0, 1 / 3, 2 / 3]]
    )
    wanted = torch.einsum("ih,jw,bhwc->bijc", share, share, picture.float())
    torch.testing.assert_close(large({"image": picture}), small({"image": wanted}), atol=1e-5, rtol=1e-4)


def test_a_working_size_above_the_picture_changes_nothing() -> None:
    assert ViTBackbone(16, working_size=48).shrink is None


@pytest.mark.parametrize(("size", "patch"), [(8, 1), (28, 3), (32, 4), (48, 6), (72, 6), (225, 6)])
def test_any_picture_becomes_eight_by_eight_patches(size: int, patch: int) -> None:
    made = scratch_vit(image_input(size), width=8, depth=1, num_heads=2)
    assert made.feature_shape.extent == (8, 8)
    assert made.patches.kernel_size == (patch, patch)
    assert made({"image": torch.zeros(1, size, size, 3, dtype=torch.uint8)}).shape == (1, 8, 8, 8)


def test_a_trunk_with_blocks_is_taken_and_a_small_untrained_one_replaced() -> None:
    made = ViTBackbone(16, width=8, depth=1, num_heads=2)
    assert block_trunk(lambda: made, image_input(16), method="x") is made
    new = block_trunk(lambda: ConvBackbone(16), image_input(16), method="x", width=16, depth=1, num_heads=2)
    assert isinstance(new, ViTBackbone)
    assert new.width == 16
    with pytest.raises(ConfigError, match="x works on the blocks of a trunk, and CifarResNet has none"):
        block_trunk(lambda: CifarResNet(8), image_input(16), method="x")
    with pytest.raises(ConfigError, match="reads one input of the kind 'image'"):
        block_trunk(None, table_input(3), method="x")
    with pytest.raises(ConfigError, match="at least 8 pixels; got 7"):
        scratch_vit(image_input(7))
