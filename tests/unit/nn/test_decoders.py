from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.nn.decoders import MultiScaleDecoder

DENSE = TaskSpec(name="depth", kind="dense_regression", size=2)
WHOLE = TaskSpec(name="kind", kind="multiclass", size=3)


def maps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)]


def test_fused_maps_lie_side_by_side_at_the_finest_size() -> None:
    decoder = MultiScaleDecoder(WHOLE, [4, 6], channels=[2, 3])
    first, second = maps()
    fused = decoder.fuse([first, second])
    torch.testing.assert_close(fused[:, :2], decoder.reduce[0](first))
    # reducing before or after the resize is the same
    enlarged = F.interpolate(second, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(fused[:, 2:], decoder.reduce[1](enlarged), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("task", "shape"), [(DENSE, (2, 2, 32, 32)), (WHOLE, (2, 3))])
def test_outputs_of_both_kinds_of_task(task: TaskSpec, shape: tuple[int, ...]) -> None:
    decoder = MultiScaleDecoder(task, [4, 6], channels=4, size=(32, 32))
    assert decoder(maps()).shape == shape
    torch.testing.assert_close(decoder.predict(decoder.fuse(maps())), decoder(maps()))


def test_every_map_counts() -> None:
    decoder = MultiScaleDecoder(DENSE, [4, 6], size=(16, 16))
    first, second = maps()
    before = decoder([first, second])
    assert not torch.allclose(before, decoder([first + 1, second]))
    assert not torch.allclose(before, decoder([first, torch.randn_like(second)]))
    assert all(isinstance(layer, nn.Conv2d) and layer.bias is None for layer in decoder.reduce)


@pytest.mark.parametrize(("widths", "channels"), [([], 4), ([4, 6], [2]), ([4], 0)])
def test_maps_and_channels_must_fit(widths: list[int], channels: int | list[int]) -> None:
    with pytest.raises(ConfigError, match="number of channels"):
        MultiScaleDecoder(WHOLE, widths, channels=channels)
