"""Patches are split and joined without loss, and a mixer layer computes what its formula says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.nn.mixers import AdaptiveMixer, AxisMixing, GatedAttention, MixerLayer, join_patches, split_patches


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_joining_undoes_splitting(batch: int, channels: int, patches: int, power: int, width: int) -> None:
    factor = 2**power
    state = torch.arange(batch * channels * patches * width * factor, dtype=torch.float32)
    state = state.reshape(batch, channels, patches, width * factor)
    fine = split_patches(state, factor)
    assert fine.shape == (batch, channels, patches * factor, width)
    assert torch.equal(join_patches(fine, factor), state)
    assert torch.equal(fine[:, :, :factor].flatten(2), state[:, :, 0]), "the parts of a patch stay beside each other, in order"


def gelu(values: np.ndarray) -> np.ndarray:
    return 0.5 * values * (1.0 + np.vectorize(math.erf)(values / math.sqrt(2.0)))


def mixed_vector(vector: np.ndarray, mixing: AxisMixing) -> np.ndarray:
    """One vector along the mixed axis, written out: two linear layers, then the gate."""
    first, last, gate = mixing.mlp[0], mixing.mlp[-1], mixing.attention.gate
    weights = [tensor.detach().double().numpy() for layer in (first, last, gate) for tensor in (layer.weight, layer.bias)]
    hidden = gelu(weights[0] @ vector + weights[1])
    state = weights[2] @ hidden + weights[3]
    score = weights[4] @ state + weights[5]
    share = np.exp(score - score.max())
    return state * share / share.sum()


def reference(state: np.ndarray, layer: MixerLayer) -> np.ndarray:
    """A mixer layer, one vector at a time."""
    for mixing, axis in ((layer.channels, 0), (layer.patches, 1), (layer.features, 2)):
        if mixing is None:
            continue
        weight, bias = (tensor.detach().double().numpy() for tensor in (mixing.norm.weight, mixing.norm.bias))
        normed = np.empty_like(state)
        for channel in range(state.shape[0]):
            for patch in range(state.shape[1]):
                row = state[channel, patch]
                normed[channel, patch] = (row - row.mean()) / np.sqrt(row.var() + 1e-5) * weight + bias
        moved, added = np.moveaxis(normed, axis, -1), np.empty_like(np.moveaxis(normed, axis, -1))
        for first in range(moved.shape[0]):
            for second in range(moved.shape[1]):
                added[first, second] = mixed_vector(moved[first, second], mixing)
        state = state + np.moveaxis(added, -1, axis)
    return state


@pytest.mark.parametrize("channels", [0, 3])
def test_a_layer_computes_what_is_written_out(channels: int) -> None:
    torch.manual_seed(0)
    layer = MixerLayer(6, 4, channels=channels).double().eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    state = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    found = layer(state).detach().numpy()
    for row in range(2):
        np.testing.assert_allclose(found[row], reference(state[row].numpy(), layer), rtol=1e-8, atol=1e-8)


def test_channels_see_each_other_only_where_they_are_mixed() -> None:
    torch.manual_seed(0)
    state = torch.randn(2, 3, 4, 8)
    other = state.clone()
    other[:, 2] = torch.randn(2, 4, 8)
    apart = MixerLayer(8, 4).eval()
    assert torch.equal(apart(state)[:, :2], apart(other)[:, :2])
    together = MixerLayer(8, 4, channels=3).eval()
    together.load_state_dict(apart.state_dict(), strict=False)
    torch.testing.assert_close(together(state), apart(state))  # mixing of channels starts as the identity
    torch.nn.init.normal_(together.channels.mlp[-1].weight)  # type: ignore[union-attr, arg-type]
    assert not torch.allclose(together(state)[:, :2], together(other)[:, :2])


def test_mixing_of_channels_learns_from_its_first_step() -> None:
    torch.manual_seed(0)
    layer = MixerLayer(8, 4, channels=3)
    layer(torch.randn(2, 3, 4, 8)).square().sum().backward()
    assert layer.channels is not None
    last = layer.channels.mlp[-1]
    assert bool(last.weight.grad.abs().sum() > 0)  # type: ignore[union-attr, operator]


def test_levels_go_from_fine_to_coarse() -> None:
    torch.manual_seed(0)
    mixer = AdaptiveMixer(32, 5, levels=3, layers=2).eval()
    assert mixer.factors == (4, 2, 1)
    seen: list[tuple[int, ...]] = []
    for level in mixer.levels:
        level.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    state = torch.randn(2, 3, 5, 32)
    result = mixer(state)
    assert result.shape == state.shape
    assert seen == [(2, 3, 20, 8), (2, 3, 10, 16), (2, 3, 5, 32)]
    expected = state
    for factor, level in zip((4, 2, 1), mixer.levels, strict=True):
        expected = level(expected.reshape(2, 3, 5 * factor, 32 // factor)).reshape(2, 3, 5, 32)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("wrong", [{"levels": 0}, {"layers": 0}, {"width": 10}, {"levels": 4}])
def test_widths_that_cannot_be_split_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="levels and layers are at least 1"):
        AdaptiveMixer(**{"width": 32, "patches": 4, "levels": 3, **wrong})


def test_the_gate_damps() -> None:
    gate = GatedAttention(4)
    torch.nn.init.zeros_(gate.gate.weight)
    torch.nn.init.zeros_(gate.gate.bias)
    torch.testing.assert_close(gate(torch.ones(2, 4)), torch.full((2, 4), 0.25))
