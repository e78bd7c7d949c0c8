from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.nn.memorial_experts import ConvExperts, GateKind, MemorialMixture


def built(gate: GateKind = "sample", **settings: bool) -> MemorialMixture:
    torch.manual_seed(0)
    mixture = MemorialMixture(5, 4, 3, gate=gate, **settings)
    for parameter in mixture.parameters():
        nn.init.normal_(parameter, std=0.5)
    return mixture


def tensors() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 5, 6, 6), torch.randn(2, 12, 6, 6), torch.randn(2, 4, 6, 6)


def test_experts_computed_together_equal_experts_one_by_one() -> None:
    torch.manual_seed(0)
    experts = ConvExperts(5, 4, 3)
    for parameter in experts.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(2, 5, 6, 6)
    together = experts(features)
    for index in range(3):
        own = slice(4 * index, 4 * index + 4)
        state = F.conv2d(features, experts.reduce.weight[own], experts.reduce.bias[own])  # type: ignore[index]
        state = F.conv2d(state, experts.spread.weight[own], experts.spread.bias[own], padding=1)  # type: ignore[index]
        state = F.group_norm(state, 1, experts.norm.weight[own], experts.norm.bias[own])
        torch.testing.assert_close(together[:, own], F.gelu(state), rtol=1e-4, atol=1e-5)


def test_a_new_gate_weighs_experts_and_memory_alike() -> None:
    features, _, memory = tensors()
    for gate in ("sample", "spatial", "static"):
        weights = MemorialMixture(5, 4, 3, gate=gate).weights(features, memory)  # type: ignore[arg-type]
        torch.testing.assert_close(weights, torch.full_like(weights, 0.25))


def test_the_mixture_is_the_written_out_formula() -> None:
    features, experts, memory = tensors()
    mixture = built()
    state, weights = mixture(features, experts, memory)
    assert mixture.context is not None
    seen = torch.cat([features.mean(dim=(2, 3)), memory.mean(dim=(2, 3))], dim=1)
    expected = torch.softmax(mixture.context(seen) + mixture.preference, dim=1)
    torch.testing.assert_close(weights[:, :, 0, 0], expected)
    g = expected.view(2, 4, 1, 1)
    assembled = sum(g[:, n : n + 1] * experts[:, 4 * n : 4 * n + 4] for n in range(3)) + g[:, 3:] * memory
    torch.testing.assert_close(state, memory + mixture.refine(assembled))
    overwritten = built(residual=False)
    torch.testing.assert_close(overwritten(features, experts, memory)[0], overwritten.refine(assembled))


@pytest.mark.parametrize("gate", ["sample", "spatial", "static"])
@pytest.mark.parametrize("with_memory", [True, False])
def test_weights_sum_to_one_and_vary_as_the_kind_says(gate: GateKind, with_memory: bool) -> None:
    features, experts, memory = tensors()
    mixture = built(gate, memory=with_memory)
    state, weights = mixture(features, experts, memory if with_memory else None)
    assert state.shape == (2, 4, 6, 6)
    assert weights.shape[:2] == (2, 3 + with_memory)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones_like(weights[:, 0]))
    assert torch.equal(weights[0], weights[1]) == (gate == "static")
    assert (weights.shape[2:] == (6, 6)) == (gate == "spatial")


def test_a_spatial_gate_decides_for_each_place_by_itself() -> None:
    features, experts, memory = tensors()
    mixture = built("spatial")
    moved = features.clone()
    moved[:, :, 0, 0] += 1.0
    before, after = mixture(features, experts, memory)[1], mixture(moved, experts, memory)[1]
    assert not torch.allclose(before[:, :, 0, 0], after[:, :, 0, 0])
    assert torch.equal(before[:, :, 1:], after[:, :, 1:])


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match="'task'"):
        MemorialMixture(5, 4, 3, gate="task")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        ConvExperts(5, 4, 0)
