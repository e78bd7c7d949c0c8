"""What every gradient transform must do: the GradientTransform seam. Transforms are found through plans and cards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bindings import binding
from discovery import found, wrong_settings
from torch import Tensor, nn

from graftwork.core.records import Component
from graftwork.interfaces.transform import GradientContext, GradientTransform
from graftwork.training.checkpoints import load_checkpoint, save_checkpoint

TRANSFORMS = found(GradientTransform)
REFUSED = [(name, wrong) for name, component in TRANSFORMS.items() for wrong in wrong_settings(component)]


@pytest.fixture(params=sorted(TRANSFORMS))
def component(request: pytest.FixtureRequest) -> Component:
    return TRANSFORMS[request.param]


class Parameters:
    """Three learned parameters with gradients, one without; two are shared, one is owned."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.learned = [nn.Parameter(torch.randn(*shape, generator=random)) for shape in ((4, 3), (5,), (2, 2), (3,))]
        self.random = random
        self.fill()

    def fill(self) -> None:
        for parameter in self.learned[:3]:
            parameter.grad = torch.randn(parameter.shape, generator=self.random)

    def context(self, step: int) -> GradientContext:
        return GradientContext(self.learned, self.learned[:2], [self.learned[2:3], self.learned[3:]], step)


def trace(transform: GradientTransform, parameters: Parameters, steps: int, first: int = 0) -> list[Tensor]:
    """Apply some steps on fresh gradients; whoever draws from torch's global generator gives himself away."""
    seen = []
    for step in range(first, first + steps):
        parameters.fill()
        torch.manual_seed(len(seen))
        transform.apply(parameters.context(step))
        seen += [torch.clone(p.grad) for p in parameters.learned[:3] if p.grad is not None]
    return seen


def bound(component: Component, seed: int = 3) -> GradientTransform:
    transform = component.build()
    assert isinstance(transform, GradientTransform)
    transform.bind(binding(seed))
    return transform


def test_the_known_transforms_are_found() -> None:
    assert "GradientNoise" in TRANSFORMS


def test_equal_seeds_give_equal_gradients_whatever_else_draws(component: Component) -> None:
    first = trace(bound(component), Parameters(), 3)
    torch.manual_seed(77)
    torch.rand(5)
    second = trace(bound(component), Parameters(), 3)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_the_global_generator_is_left_alone(component: Component) -> None:
    transform, parameters = bound(component), Parameters()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    transform.apply(parameters.context(0))
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_change_in_place_and_nothing_else(component: Component) -> None:
    transform, parameters = bound(component), Parameters()
    values = [parameter.detach().clone() for parameter in parameters.learned]
    gradients = [parameter.grad for parameter in parameters.learned]
    transform.apply(parameters.context(0))
    assert all(torch.equal(one, two) for one, two in zip(values, parameters.learned, strict=True))
    assert parameters.learned[3].grad is None, "a parameter without gradient stays without"
    for before, parameter in zip(gradients, parameters.learned, strict=True):
        assert parameter.grad is before
        assert before is None or (bool(before.isfinite().all()) and not before.requires_grad)


def test_shapes_and_precision_stay(component: Component) -> None:
    transform, double = bound(component), nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    double.grad = torch.ones_like(double)
    transform.apply(GradientContext([double], [double], [[]], 0))
    assert double.grad.dtype == torch.float64
    assert double.grad.shape == (2, 3)


def test_no_gradients_at_all_are_survived(component: Component) -> None:
    transform, alone = bound(component), nn.Parameter(torch.ones(2))
    transform.apply(GradientContext([alone], [alone], [[]], 0))
    assert alone.grad is None


def test_the_state_goes_through_a_file_and_continues_with_the_same_bits(component: Component, tmp_path: Path) -> None:
    transform, parameters = bound(component), Parameters()
    trace(transform, parameters, 3)
    save_checkpoint(tmp_path, {"transform": transform.state_dict(), "random": parameters.random.get_state()})
    expected = trace(transform, parameters, 3, first=3)
    state = load_checkpoint(tmp_path)
    resumed, again = bound(component, seed=99), Parameters()
    resumed.load_state_dict(state["transform"])
    again.random.set_state(state["random"])
    for one, two in zip(expected, trace(resumed, again, 3, first=3), strict=True):
        assert torch.equal(one, two)


def test_binding_again_starts_anew(component: Component) -> None:
    transform = bound(component)
    first = trace(transform, Parameters(), 3)
    transform.bind(binding(3))
    assert all(torch.equal(one, two) for one, two in zip(first, trace(transform, Parameters(), 3), strict=True))


@pytest.mark.parametrize(("name", "wrong"), REFUSED, ids=lambda value: str(value))
def test_wrong_settings_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        Component(TRANSFORMS[name].path, {**TRANSFORMS[name].settings, **wrong}).build()
