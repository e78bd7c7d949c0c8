from __future__ import annotations

import pytest
import torch

from graftwork.core.errors import ConfigError
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.cnn import ConvBackbone
from graftwork.nn.backbones.swin import PatchMerging, SwinBackbone, SwinBlock
from graftwork.nn.backbones.swin_timm import as_swin, is_timm_swin

SMALL = {"widths": (8, 16), "depths": (2, 2), "num_heads": (2, 4), "window": 4}


def pictures(size: int, rows: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (rows, size, size, 3), generator=generator, dtype=torch.uint8)}


@pytest.mark.parametrize("layout", ["vector", "map"])
@pytest.mark.parametrize("size", [32, 36])  # 36: windows and mergings need padding
def test_same_numbers_as_timm(size: int, layout: str) -> None:
    timm_swin = pytest.importorskip("timm.models.swin_transformer")
    from graftwork.nn.backbones.timm_bridge import TimmBackbone

    torch.manual_seed(0)
    model = timm_swin.SwinTransformer(
        img_size=size, patch_size=2, embed_dim=8, depths=(2, 2, 1), num_heads=(2, 2, 4), window_size=4, num_classes=0
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    bridge = TimmBackbone(model.eval(), size=size, layout=layout, mean=(0.4, 0.5, 0.6)).eval()  # type: ignore[arg-type]
    own = as_swin(bridge).eval()
    assert is_timm_swin(bridge)
    assert own.feature_shape == bridge.feature_shape
    torch.testing.assert_close(own(pictures(size)), bridge(pictures(size)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own(pictures(20)), bridge(pictures(20)), rtol=1e-5, atol=1e-6)  # resized inside


def test_the_own_swin_passes_through_and_others_are_refused() -> None:
    own = SwinBackbone(16, **SMALL)  # type: ignore[arg-type]
    assert as_swin(own) is own
    with pytest.raises(ConfigError, match=r"ConvBackbone is none. Name one with --backbone"):
        as_swin(ConvBackbone(16))
    assert not is_timm_swin(own)


@pytest.mark.parametrize("feature_map", [False, True])
def test_shapes(feature_map: bool) -> None:
    backbone: Backbone = SwinBackbone(16, feature_map=feature_map, **SMALL)  # type: ignore[arg-type]
    features = backbone(pictures(16))
    assert tuple(features.shape[1:]) == (16, *backbone.feature_shape.extent)
    assert backbone.feature_shape.extent == ((4, 4) if feature_map else ())


def test_without_a_shift_windows_do_not_see_each_other_and_with_one_they_do() -> None:
    torch.manual_seed(0)
    for shift, blind in ((0, True), (2, False)):
        block = SwinBlock(8, 2, 8, window=4, shift=shift).eval()
        states = torch.randn(1, 8, 8, 8)
        changed = states.clone()
        changed[:, 4:, 4:] += torch.randn(1, 4, 4, 8)  # the last of four windows
        before, after = block(states), block(changed)
        assert torch.equal(before[:, :4, :4], after[:, :4, :4]) == blind


def test_shifted_windows_do_not_join_opposite_ends() -> None:
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 8, window=4, shift=2).eval()
    states = torch.randn(1, 8, 8, 8)
    changed = states.clone()
    changed[:, 0, 0] += 1.0
    difference = (block(states) - block(changed)).detach().abs().amax(dim=-1)[0]
    assert float(difference[:2, :2].max()) > 1e-4
    assert float(difference[6:].max()) < 1e-6
    assert float(difference[:, 6:].max()) < 1e-6


def test_position_bias_is_by_offset() -> None:
    block = SwinBlock(4, 2, 2, window=4, shift=2)
    assert (block.window, block.shift) == (2, 0), "a map smaller than the window is one window"
    with torch.no_grad():
        block.position_bias.copy_(torch.arange(9.0).unsqueeze(1).expand(9, 2))
    # rows of the table: (row offset + 1) * 3 + column offset + 1, for query minus key
    assert block._bias()[0].tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]


def test_merging_puts_neighbours_side_by_side() -> None:
    merge = PatchMerging(1, 4)
    merge.norm = torch.nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        merge.reduction.weight.copy_(torch.eye(4))
    states = torch.arange(4.0).view(1, 2, 2, 1)
    assert merge(states).flatten().tolist() == [0.0, 2.0, 1.0, 3.0]  # column by column, as the released weights expect
    assert merge(torch.ones(1, 3, 3, 1))[0, 1, 1].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"size": 15}, "divisible by `patch`"), ({"depths": (2,)}, "as many"), ({"num_heads": (3, 4)}, "divisible by `num_heads`")],
)
def test_wrong_settings(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SwinBackbone(**{"size": 16, **SMALL, **settings})  # type: ignore[arg-type]
