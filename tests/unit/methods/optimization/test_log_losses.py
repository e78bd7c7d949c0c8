from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.methods.optimization.log_losses import LogLosses


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_factors_on_losses_change_no_gradient(first: float, second: float) -> None:
    gradients = []
    for factors in (torch.ones(2), torch.tensor([first, second])):
        parameter = torch.tensor([1.0, -0.5], requires_grad=True)
        losses = torch.stack([(parameter**2).sum(), (parameter[0] - 3.0) ** 2])
        scalar, weights = LogLosses().scalarize(losses * factors)
        torch.testing.assert_close(weights, 1.0 / (losses * factors).detach())
        scalar.backward()
        gradients.append(parameter.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_tasks_without_labels_weigh_nothing_and_tiny_losses_stay_finite() -> None:
    losses = torch.tensor([0.0, 1e-12, 2.0], requires_grad=True)
    scalar, weights = LogLosses().scalarize(losses)
    scalar.backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([0.0, 0.0, 0.5])
    assert weights.tolist() == pytest.approx([0.0, 1e8, 0.5])
