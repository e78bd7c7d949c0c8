from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer, ForwardPass
from graftwork.methods.optimization.sam import ASAM, SAM
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting


class Two(nn.Module):
    """One shared matrix, two heads, float64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.shared = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
        self.heads = nn.ParameterList(torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))
        self.inputs = torch.randn(5, 4, generator=generator, dtype=torch.float64)

    def run(self, inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
        hidden = torch.tanh(self.inputs @ self.shared)
        outputs = {str(index): hidden @ head for index, head in enumerate(self.heads)}
        return ForwardPass(outputs, torch.stack([(output - 1).square().mean() for output in outputs.values()]), hidden)

    def step(self, balancer: Balancer) -> list[Tensor]:
        self.zero_grad(set_to_none=True)
        first = self.run()
        context = BackwardContext([self.shared], [[head] for head in self.heads], first.representation, 0, self.run)
        balancer.backward(first.losses, context)
        return [parameter.grad.clone() for parameter in self.parameters() if parameter.grad is not None]


def naive(model: Two, rho: float, adaptive: bool, eta: float = 0.0, weights: tuple[float, float] = (1.0, 1.0)) -> list[Tensor]:
    """The two passes written out, parameter by parameter."""
    parameters = list(model.parameters())

    def loss() -> Tensor:
        return (model.run().losses * torch.tensor(weights, dtype=torch.float64)).sum()

    gradients = torch.autograd.grad(loss(), parameters)
    scales = [parameter.detach().abs() + eta if adaptive else torch.ones_like(parameter) for parameter in parameters]
    norm = math.sqrt(sum(float((scale * gradient).square().sum()) for scale, gradient in zip(scales, gradients, strict=True)))
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter, gradient, scale in zip(parameters, gradients, scales, strict=True):
        parameter.data += rho * scale * scale * gradient / norm
    found = torch.autograd.grad(loss(), parameters)
    for parameter, value in zip(parameters, before, strict=True):
        parameter.data = value
    return list(found)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.7])
def test_a_step_equals_two_naive_passes(rho: float) -> None:
    model = Two()
    torch.testing.assert_close(model.step(SAM(rho)), naive(model, rho, adaptive=False))
    torch.testing.assert_close(model.step(ASAM(rho, eta=0.02)), naive(model, rho, adaptive=True, eta=0.02))
    torch.testing.assert_close(model.step(ASAM(rho, eta=0.0)), naive(model, rho, adaptive=True))


def test_the_ascent_follows_what_the_inner_balancer_minimises() -> None:
    model = Two()
    inner = {"path": "graftwork.methods.optimization.equal_weights:EqualWeights", "settings": {"weights": [0.2, 3.0]}}
    torch.testing.assert_close(model.step(SAM(0.3, balancer=inner)), naive(model, 0.3, adaptive=False, weights=(0.2, 3.0)))


def test_inner_parameters_are_learned_along() -> None:
    model, inner = Two(), UncertaintyWeighting()
    balancer = SAM(0.1, balancer=inner)
    model.step(balancer)
    assert balancer.parameters() == inner.parameters()
    assert all(parameter.grad is not None for parameter in balancer.parameters())


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`rho` must be at least 0; got -1"):
        SAM(-1)
    with pytest.raises(ConfigError, match="`rho` must be at least 0; got nan"):
        ASAM(math.nan)
    with pytest.raises(ConfigError, match="`eta` must be at least 0; got -0.1"):
        ASAM(eta=-0.1)
    with pytest.raises(ConfigError, match="`balancer` must be a Balancer or name one as a component"):
        SAM(balancer=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Ledger' is no component of the seam Balancer"):
        SAM(balancer="graftwork.core.records:Ledger")
