from __future__ import annotations

import pytest
import torch

from graftwork.interfaces.balancer import BackwardContext
from graftwork.methods.optimization.equal_weights import EqualWeights


def test_gradients_are_those_of_the_sum() -> None:
    parameter = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    losses = torch.stack([parameter[0] ** 2, parameter.prod()])
    weights = EqualWeights().backward(losses, BackwardContext([parameter], [[], []], None, 0))
    assert weights is not None
    assert weights.tolist() == [1.0, 1.0]
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [4.0 + 3.0, 2.0]


def test_fixed_weights_scale_each_loss() -> None:
    parameter = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    EqualWeights([0.5, 2.0]).backward(parameter**2, BackwardContext([parameter], [[], []], None, 0))
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [2.0, 12.0]


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`weights` must be at least 0; got \[1.0, -1.0\]"):
        EqualWeights([1.0, -1.0])
    with pytest.raises(ValueError, match="2 entries for 3 tasks"):
        EqualWeights([1.0, 1.0]).scalarize(torch.zeros(3))
