from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.math.perturbation import ascent_offsets, global_norm, restored


def test_norm_runs_over_all_tensors() -> None:
    assert float(global_norm([torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])])) == pytest.approx(5.0)
    assert float(global_norm([])) == 0.0


def test_plain_offsets_by_hand() -> None:
    parameters = [torch.tensor([1.0]), torch.tensor([2.0, 2.0])]
    offsets = ascent_offsets(parameters, [torch.tensor([3.0]), torch.tensor([0.0, -4.0])], 0.5)
    torch.testing.assert_close(offsets, [torch.tensor([0.3]), torch.tensor([0.0, -0.4])])


def test_adaptive_offsets_by_hand() -> None:
    # |w| g = (3, 4): norm 5; w^2 g = (3, 8)
    offsets = ascent_offsets([torch.tensor([-1.0, 2.0])], [torch.tensor([3.0, 2.0])], 0.5, adaptive=True)
    torch.testing.assert_close(offsets, [torch.tensor([0.3, 0.8])])
    # with eta = 1: T = (2, 3), T g = (6, 6), T^2 g = (12, 18)
    offsets = ascent_offsets([torch.tensor([-1.0, 2.0])], [torch.tensor([3.0, 2.0])], 2.0, adaptive=True, eta=1.0)
    torch.testing.assert_close(offsets, [torch.tensor([24.0, 36.0]) / 72.0**0.5])


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_zero_gradient_moves_nothing(adaptive: bool) -> None:
    assert ascent_offsets([], [], 1.0) == []
    (offset,) = ascent_offsets([torch.ones(3)], [torch.zeros(3)], 1.0, adaptive=adaptive)
    assert torch.equal(offset, torch.zeros(3))


@given(st.integers(0, 1000), st.floats(1e-3, 10.0), st.sampled_from([1e-12, 1.0, 1e6]))
def test_length_is_the_radius_whatever_the_gradients_scale(seed: int, radius: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
    gradients = [scale * torch.randn(parameter.shape, generator=generator) for parameter in parameters]
    before = [gradient.clone() for gradient in gradients]
    plain = ascent_offsets(parameters, gradients, torch.tensor(radius))
    assert float(global_norm(plain)) == pytest.approx(radius, rel=1e-4)
    adaptive = ascent_offsets(parameters, gradients, radius, adaptive=True)
    unscaled = [offset / parameter.abs() for offset, parameter in zip(adaptive, parameters, strict=True)]
    assert float(global_norm(unscaled)) == pytest.approx(radius, rel=1e-3)
    assert all(torch.equal(one, two) for one, two in zip(gradients, before, strict=True))


def test_restored_puts_back_the_same_bits_even_after_an_error() -> None:
    parameters = [torch.nn.Parameter(torch.tensor([1.0, 1e-9])), torch.nn.Parameter(torch.tensor([0.1]))]
    before = [parameter.detach().clone() for parameter in parameters]
    with pytest.raises(RuntimeError, match="stop"), restored(parameters):
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(1e8)
        raise RuntimeError("stop")
    assert all(torch.equal(one.detach(), two) for one, two in zip(parameters, before, strict=True))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("radius", [4.1, 1e6, torch.tensor(1e20)])
def test_a_zero_gradient_moves_nothing_whatever_the_radius(adaptive: bool, radius: float | torch.Tensor) -> None:
    offsets = ascent_offsets([torch.ones(3), torch.ones(2)], [torch.zeros(3), torch.zeros(2)], radius, adaptive=adaptive)
    assert all(torch.equal(offset, torch.zeros_like(offset)) for offset in offsets)
