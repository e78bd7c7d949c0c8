from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.interfaces.balancer import BackwardContext, ForwardPass
from graftwork.methods.optimization.tram import TRAM, noised_inputs

LABELS = torch.tensor([0, 1, 2, 1])


class Classifier(nn.Module):
    """A small classifier, float64."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        self.inputs = torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def run(self, inputs: Mapping[str, Tensor] | None = None) -> ForwardPass:
        logits = self.layers(self.inputs if inputs is None else inputs["numeric"])
        return ForwardPass({"kind": logits}, F.cross_entropy(logits, LABELS).unsqueeze(0), None)

    def step(self, balancer: TRAM, rate: float = 0.5) -> list[Tensor]:
        """One step of gradient descent; returns the gradients."""
        self.zero_grad(set_to_none=True)
        first = self.run()
        tasks = [TaskSpec(name="kind", kind="multiclass", size=3)]
        trunk, head = list(self.layers[0].parameters()), list(self.layers[2].parameters())
        context = BackwardContext(trunk, [head], None, 0, self.run, first.outputs, {"numeric": self.inputs}, tasks)
        balancer.backward(first.losses, context)
        gradients = [parameter.grad.clone() for parameter in self.parameters() if parameter.grad is not None]
        with torch.no_grad():
            for parameter, gradient in zip(self.parameters(), gradients, strict=True):
                parameter.sub_(rate * gradient)
        return gradients


def mean_divergence(reference: Tensor, output: Tensor) -> float:
    """KL(reference || output), row by row."""
    p, q = reference.softmax(dim=1), output.softmax(dim=1)
    return float((p * (p / q).log()).sum(dim=1).mean())


def naive_gradient(model: Classifier, radius: float, released: bool = False) -> list[Tensor]:
    """The formula written out: one norm over all parameters, in the geometry of the weights."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model.run().losses.sum(), parameters)
    norm = torch.cat(
        [(parameter.abs() * gradient).flatten() for parameter, gradient in zip(parameters, gradients, strict=True)]
    ).norm()
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter, gradient, value in zip(parameters, gradients, before, strict=True):
        parameter.data = value + radius * value**2 * (1.0 if released else gradient) / norm.detach()
    found = torch.autograd.grad(model.run().losses.sum(), parameters)
    for parameter, value in zip(parameters, before, strict=True):
        parameter.data = value
    return list(found)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("reference", ["theta_prev", "theta_0"])
def test_steps_equal_the_formula_written_out(reference: str, released: bool) -> None:
    model, balancer = Classifier(), TRAM(reference, scale=3.0, released=released)  # type: ignore[arg-type]
    seen: list[Tensor] = []
    radii: list[float] = []
    for step in range(4):
        logits = model.run().outputs["kind"].detach()
        if step == 0:
            radius = 0.0
        else:
            radius = 3.0 * mean_divergence(seen[-1] if reference == "theta_prev" else seen[0], logits)
            radius /= 3 * 4 if released else 1  # by the outputs, and by the batch once more
            assert radius > 1e-5
        seen.append(logits)
        radii.append(radius)
        expected = naive_gradient(model, radius, released)
        torch.testing.assert_close(model.step(balancer), expected)
    assert balancer.mean_radius == pytest.approx(sum(radii) / 4)


def test_noised_inputs_set_the_radius_from_the_first_step_on() -> None:
    model, balancer = Classifier(), TRAM("x", sigma=0.3)
    torch.manual_seed(7)
    noised = noised_inputs({"numeric": model.inputs}, 0.3)
    radius = mean_divergence(model.run(noised).outputs["kind"].detach(), model.run().outputs["kind"].detach())
    assert radius > 1e-3
    expected = naive_gradient(model, radius)
    torch.manual_seed(7)
    torch.testing.assert_close(model.step(balancer), expected)
    assert balancer.mean_radius == pytest.approx(radius)


def test_the_first_step_is_plain_and_a_still_model_stays_plain() -> None:
    model, balancer = Classifier(), TRAM("theta_prev")
    plain = torch.autograd.grad(model.run().losses.sum(), list(model.parameters()))
    for _ in range(3):
        torch.testing.assert_close(model.step(balancer, rate=0.0), list(plain))
    assert balancer.mean_radius == pytest.approx(0.0, abs=1e-12)


def test_noise_goes_to_what_is_continuous() -> None:
    inputs = {
        "image": torch.full((2, 40, 40, 3), 100, dtype=torch.uint8),
        "numeric": torch.zeros(2, 5000),
        "categorical": torch.ones(2, 3, dtype=torch.int64),
    }
    noised = noised_inputs(inputs, 0.1)
    assert noised["categorical"] is inputs["categorical"]
    assert noised["image"].std().item() == pytest.approx(25.5, rel=0.05)
    assert noised["image"].mean().item() == pytest.approx(100.0, abs=1.0)
    assert noised["numeric"].std().item() == pytest.approx(0.1, rel=0.05)
    assert not bool(inputs["numeric"].any())
    with pytest.raises(ConfigError, match="none of the inputs tokens is continuous"):
        noised_inputs({"tokens": torch.ones(2, 3, dtype=torch.int64)}, 0.1)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="`reference` must be one of theta_prev, theta_0, x; got 'ema'"):
        TRAM("ema")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="`sigma` must be above 0; got 0"):
        TRAM("x", sigma=0)
    with pytest.raises(ConfigError, match="`scale` must be above 0; got -1"):
        TRAM(scale=-1)
    model = Classifier()
    first = model.run()
    context = BackwardContext(list(model.parameters()), [], None, 0, model.run)
    with pytest.raises(ConfigError, match="hands over no tasks, inputs and outputs"):
        TRAM("x").backward(first.losses, context)
