from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.nn.adversarial import DomainClassifier, pool_features, ramp_up, reverse_gradient


@given(st.floats(0.0, 10.0))
def test_reversal_is_the_identity_forward_and_a_negative_factor_backward(strength: float) -> None:
    features = torch.tensor([[1.0, -2.0]], requires_grad=True)
    found = reverse_gradient(features, strength)
    assert torch.equal(found, features)
    (found * torch.tensor([[3.0, 5.0]])).sum().backward()
    torch.testing.assert_close(features.grad, -strength * torch.tensor([[3.0, 5.0]]))


def test_the_ramp_runs_from_zero_to_one_and_stays_there() -> None:
    assert ramp_up(0.0) == ramp_up(-1.0) == 0.0
    assert ramp_up(1.0) == ramp_up(7.0) == pytest.approx(0.9999, abs=1e-4)
    assert ramp_up(0.1) == pytest.approx(0.4621, abs=1e-4)
    assert ramp_up(0.5, sharpness=0.0) == 0.0


def test_features_of_every_layout_become_one_vector_a_row() -> None:
    values = torch.arange(24.0)
    assert torch.equal(pool_features(values.reshape(6, 4)), values.reshape(6, 4))
    assert pool_features(values.reshape(2, 3, 4)).tolist() == [[4.0, 5.0, 6.0, 7.0], [16.0, 17.0, 18.0, 19.0]]
    assert pool_features(values.reshape(2, 3, 2, 2)).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


def test_the_classifier_has_the_asked_layers() -> None:
    linear, deep = DomainClassifier(5, hidden=()), DomainClassifier(5, hidden=(7, 3), num_outputs=4)
    assert sum(parameter.numel() for parameter in linear.parameters()) == 6
    assert deep(torch.zeros(2, 5)).shape == (2, 4)
