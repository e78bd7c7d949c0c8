from __future__ import annotations

import numpy as np
import torch

from graftwork.math.representation_similarity import linear_cka
from graftwork.nn.kernel_alignment import centred_gram, kernel_alignment


def test_the_gram_matrix_is_centred_on_both_sides() -> None:
    states = torch.randn(7, 3, 2)
    centring = torch.eye(7) - torch.ones(7, 7) / 7
    flat = states.flatten(1)
    torch.testing.assert_close(centred_gram(states), centring @ flat @ flat.T @ centring, rtol=1e-5, atol=1e-5)


def test_it_is_the_measure_of_stored_features() -> None:
    first, second = torch.randn(20, 6), torch.randn(20, 4, 3)
    expected = linear_cka(first.numpy(), second.flatten(1).numpy())
    np.testing.assert_allclose(float(kernel_alignment(first, second)), expected, rtol=1e-4)


def test_turns_and_sizes_do_not_count() -> None:
    states = torch.randn(12, 5)
    turn = torch.linalg.qr(torch.randn(5, 5)).Q
    torch.testing.assert_close(kernel_alignment(states, 7.0 * states @ turn + 3.0), torch.tensor(1.0), rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    first = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(6, 4, dtype=torch.float64)

    def aligned(states: torch.Tensor) -> torch.Tensor:
        # The module computes in float32; the same formula in float64.
        one, two = (part - part.mean(dim=0) for part in (states, second))
        k, m = one @ one.T, two @ two.T
        return (k * m).sum() / (k.norm() * m.norm())

    assert torch.autograd.gradcheck(aligned, (first,))
    kernel_alignment(first, second).backward()
    assert first.grad is not None
    (expected,) = torch.autograd.grad(aligned(first), first)
    torch.testing.assert_close(first.grad, expected, rtol=1e-3, atol=1e-5)


def test_a_layer_that_does_not_vary_has_no_alignment_and_a_finite_gradient() -> None:
    constant = torch.ones(5, 3, requires_grad=True)
    found = kernel_alignment(constant, torch.randn(5, 2))
    found.backward()
    assert float(found.detach()) == 0.0
    assert constant.grad is not None
    assert bool(constant.grad.isfinite().all())
