"""OSNet against a written-out block, the published sizes, and what the paper says of gate, streams and norms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.osnet import AIN, ChannelGate, OSBlock, OSNet, Transition
from graftwork.nn.taps import tapped

SMALL: dict[str, Any] = {"widths": (8, 16, 16, 24), "depths": (1, 1, 1), "feature_width": 12}
EVERY_WIDTH = {  # widths: parameters that are there, and those of the gates
    (64, 256, 384, 512): (2_169_508, 8_036),
    (48, 192, 288, 384): (1_285_754, 4_490),
    (32, 128, 192, 256): (630_034, 2_162),
    (16, 64, 96, 128): (201_864, 568),
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def pictures(rows: int = 3, size: int = 32) -> dict[str, Tensor]:
    return {"image": torch.randint(0, 256, (rows, size, size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)}


@pytest.mark.parametrize("widths", EVERY_WIDTH)
def test_sizes_are_the_published_ones(widths: tuple[int, ...]) -> None:
    """The model zoo says 2.2, 1.3, 0.6 and 0.2 million without classifier."""
    model = OSNet(widths=widths)
    total, gates = EVERY_WIDTH[widths]
    assert count(model) == total
    assert sum(count(module) for module in model.modules() if isinstance(module, ChannelGate)) == gates
    assert round(total / 1e6, 1) == {64: 2.2, 48: 1.3, 32: 0.6, 16: 0.2}[widths[0]]


def test_counters_that_see_the_shared_gate_four_times_give_the_number_that_is_quoted() -> None:
    """2,193,616 and 203,568 are printed by the authors' counter, which adds up the modules that were called: the gate runs four
    times."""
    assert [total + 3 * gates for total, gates in (EVERY_WIDTH[64, 256, 384, 512], EVERY_WIDTH[16, 64, 96, 128])] == [
        2_193_616,
        203_568,
    ]


def test_the_searched_placement_costs_no_parameter() -> None:
    assert count(OSNet(placement=AIN, stem_norm="instance")) == count(OSNet())


def written_out(block: OSBlock, state: Tensor, width: int, streams: int) -> Tensor:
    """One stream after the other, each Lite 3x3 cut out of the block's layers, the gate called once a stream."""
    squeeze = F.relu(F.batch_norm(F.conv2d(state, block.squeeze[0].weight), None, None, *affine(block.squeeze[1]), training=True))
    fused = torch.zeros_like(squeeze)
    for stream in range(streams):
        seen = squeeze
        for depth in range(stream + 1):
            layer: Any = block.layers[depth]
            place = slice((stream - depth) * width, (stream - depth + 1) * width)
            seen = F.conv2d(seen, layer.point.weight[place])
            seen = F.conv2d(seen, layer.depth.weight[place], padding=1, groups=width)
            scale, shift = affine(layer.norm)
            seen = F.relu(F.batch_norm(seen, None, None, scale[place], shift[place], training=True))
        gate: Any = block.gate
        mean = seen.mean(dim=(2, 3))
        hidden = F.relu(mean @ gate.reduce.weight[:, :, 0, 0].T + gate.reduce.bias)
        weight = torch.sigmoid(hidden @ gate.expand.weight[:, :, 0, 0].T + gate.expand.bias)
        fused = fused + weight[:, :, None, None] * seen
    merged = F.conv2d(fused, block.merge[0].weight)
    if isinstance(block.merge[1], nn.InstanceNorm2d):
        merged = instance_norm(merged, block.merge[1])
    else:
        merged = F.batch_norm(merged, None, None, *affine(block.merge[1]), training=True)
    total = merged + state
    if isinstance(block.after, nn.InstanceNorm2d):
        total = instance_norm(total, block.after)
    return F.relu(total)


def affine(norm: Any) -> tuple[Tensor, Tensor]:
    return norm.weight, norm.bias


def instance_norm(state: Tensor, norm: Any) -> Tensor:
    mean, variance = state.mean(dim=(2, 3), keepdim=True), state.var(dim=(2, 3), keepdim=True, unbiased=False)
    return (state - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize("placement", ["plain", "inside", "after", "both"])
@pytest.mark.parametrize("streams", [1, 4])
def test_the_block_is_the_written_out_one(placement: Any, streams: int) -> None:
    torch.manual_seed(0)
    block = OSBlock(32, 32, streams=streams, placement=placement)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    state = torch.randn(4, 32, 6, 5)
    torch.testing.assert_close(block(state), written_out(block, state, 8, streams), rtol=1e-4, atol=1e-4)


def test_all_streams_share_one_gate() -> None:
    block = OSBlock(16, 16)
    assert [name for name, module in block.named_modules() if isinstance(module, ChannelGate)] == ["gate"]
    scales = torch.randn(2, 1, 4, 3, 3).expand(2, 4, 4, 3, 3)
    weights = block.weigh(scales)
    assert weights.shape == (2, 4, 4, 1, 1)
    assert torch.equal(weights, weights[:, :1].expand_as(weights)), "equal streams get equal weights"
    block.weigh(torch.randn(2, 4, 4, 3, 3)).sum().backward()
    assert all(parameter.grad is not None for parameter in block.gate.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("stream", range(4))
def test_a_stream_sees_three_five_seven_nine_pixels(stream: int) -> None:
    block = OSBlock(4, 4)
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    block.eval()
    state = torch.zeros(1, 1, 15, 15)
    state[0, 0, 7, 7] = 1.0
    before, after = block.see(torch.zeros_like(state)), block.see(state)
    reached = (before != after)[0, stream, 0].nonzero()
    assert (reached.amin(dim=0).tolist(), reached.amax(dim=0).tolist()) == ([6 - stream] * 2, [8 + stream] * 2)


def test_other_fusions_have_no_gate() -> None:
    gated, added, beside = (OSBlock(16, 16, fusion=fusion) for fusion in ("gate", "sum", "concat"))  # type: ignore[arg-type]
    assert count(gated) - count(added) == count(gated.gate)  # type: ignore[arg-type]
    assert count(beside) - count(added) == 3 * 4 * 16
    state = torch.randn(2, 16, 4, 4)
    assert added(state).shape == beside(state).shape == state.shape
    seen = added.see(F.relu(added.squeeze(state)))
    expected = F.relu(added.merge(seen.sum(dim=1)) + state)
    torch.testing.assert_close(added(state), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("placement", "normed"), [("plain", 0), ("inside", 1), ("after", 1), ("both", 2)])
def test_placements_put_instance_norms_where_they_say(placement: Any, normed: int) -> None:
    block = OSBlock(16, 16, placement=placement)
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in block.modules()) == normed
    assert isinstance(block.merge[1], nn.InstanceNorm2d) == (placement in ("inside", "both")), "it replaces the batch norm"
    assert len(block.merge) == 2


def test_an_instance_norm_after_the_sum_takes_contrast_and_brightness_away() -> None:
    torch.manual_seed(0)
    model = OSNet(stem="small", stem_norm="instance", placement="after", **SMALL).eval()
    model_without = OSNet(stem="small", **SMALL).eval()
    inputs = pictures()
    changed = {"image": (0.5 * inputs["image"].float() + 40.0).round().to(torch.uint8)}
    with torch.no_grad():
        maps = [(net.embed(inputs).flatten(1), net.embed(changed).flatten(1)) for net in (model, model_without)]
    moved = [float(1 - F.cosine_similarity(before, after).mean()) for before, after in maps]
    assert moved[0] < 0.02 < moved[1]


def test_every_stream_starts_as_if_it_were_alone() -> None:
    torch.manual_seed(0)
    block = OSNet(widths=(64, 256, 384, 512)).blocks[0]
    layers: Any = block.layers
    for layer in layers:
        assert float(layer.point.weight.detach().std()) == pytest.approx((2 / 64) ** 0.5, rel=0.05)
        assert float(layer.depth.weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.1)


def test_blocks_and_transitions_are_the_chain() -> None:
    model = OSNet(widths=(8, 16, 16, 24), feature_width=12)
    assert [type(block) for block in model.block_list()] == [
        OSBlock,
        OSBlock,
        Transition,
        OSBlock,
        OSBlock,
        Transition,
        OSBlock,
        OSBlock,
    ]
    with tapped(model, [1, 2, 7]) as found:
        assert model(pictures(size=64)).shape == (3, 12)
    assert [tuple(state.shape[1:]) for state in found.values()] == [(16, 16, 16), (16, 8, 8), (24, 4, 4)]


def test_the_small_stem_keeps_four_times_the_places() -> None:
    stems: tuple[Any, ...] = ("paper", "small")
    sizes = [OSNet(stem=stem, **SMALL).embed(pictures(size=32)).shape[2:] for stem in stems]
    assert sizes == [(8, 8), (16, 16)]


def test_maps_and_bare_vectors() -> None:
    assert OSNet(**{**SMALL, "feature_width": 0}).eval()(pictures()).shape == (3, 24)
    assert OSNet(feature_map=True, **SMALL).eval()(pictures()).shape == (3, 24, 2, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (8, 16, 16)}, "`widths` are four numbers"),
        ({"widths": (8, 16, 18, 24)}, "divisible by 4 and a stream; got 18 and 4"),
        ({"streams": 0}, "a stream; got 16 and 0"),
        ({"placement": "outside"}, "`placement` must be one of plain, inside, after, both; got 'outside'"),
        ({"placement": ("plain",)}, "one for each of the 3 blocks; got \\['plain'\\]"),
        ({"fusion": "max"}, "`fusion` must be one of gate, sum, concat"),
        ({"stem": "large"}, "`stem` must be one of paper, small"),
        ({"stem_norm": "none"}, "`stem_norm` must be one of batch, instance"),
        ({"feature_width": -1}, "`feature_width` is at least 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OSNet(**{**SMALL, **settings})
