"""What every balancer that climbs before it steps must do, in all combinations with aggregators and with noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bindings import binding
from torch import Tensor
from two_pass_models import RepeatableModel

from graftwork.core.errors import ConfigError
from graftwork.interfaces.balancer import BackwardContext, Balancer
from graftwork.interfaces.transform import GradientContext
from graftwork.methods.optimization.flat_mtl import FlatMTL
from graftwork.methods.optimization.grad_noise import GradientNoise
from graftwork.methods.optimization.sam import ASAM, SAM
from graftwork.methods.optimization.torchjd_bridge import AGGREGATORS
from graftwork.methods.optimization.tram import TRAM

SETTINGS: dict[str, dict[str, Any]] = {
    "Constant": {"weights": [0.5, 1.0, 2.0]},
    "Krum": {"n_byzantine": 0, "n_selected": 1},
    "TrimmedMean": {"trim_number": 0},
}
INNER: dict[str, Any] = {
    "sum": None,
    "uncertainty": "graftwork.methods.optimization.uncertainty:UncertaintyWeighting",
    "pcgrad": {"path": "graftwork.methods.optimization.torchjd_bridge:jacobian_balancer", "settings": {"aggregator": "PCGrad"}},
    "mgda-ub": {
        "path": "graftwork.methods.optimization.torchjd_bridge:jacobian_balancer",
        "settings": {"aggregator": "MGDA", "mode": "representation"},
    },
}
OUTER: dict[str, Callable[[Any], Balancer]] = {
    "sam": lambda inner: SAM(0.1, balancer=inner),
    "asam": lambda inner: ASAM(0.1, balancer=inner),
    "tram-prev": lambda inner: TRAM("theta_prev", balancer=inner),
    "tram-0": lambda inner: TRAM("theta_0", balancer=inner),
    "tram-x": lambda inner: TRAM("x", balancer=inner),
}
BUILDERS: dict[str, Callable[[], Balancer]] = {
    **{f"flat-{name}": lambda name=name: FlatMTL(name, **SETTINGS.get(name, {})) for name in AGGREGATORS},
    **{f"flat-{variant}": lambda variant=variant: FlatMTL("CAGrad", variant) for variant in ("direct", "each", "second")},
    "flat-own-function": lambda: FlatMTL(lambda: lambda matrix: matrix.sum(dim=0)),
    **{f"{outer}-{inner}": lambda outer=outer, inner=inner: OUTER[outer](INNER[inner]) for outer in OUTER for inner in INNER},
}


@pytest.fixture(params=sorted(BUILDERS))
def build(request: pytest.FixtureRequest) -> Callable[[], Balancer]:
    return BUILDERS[request.param]


def trace(balancer: Balancer, model: RepeatableModel, num_steps: int, noise: GradientNoise, first: int = 0) -> list[list[Tensor]]:
    """Run some noisy steps; random methods draw the same numbers every time."""
    found = []
    for step in range(first, first + num_steps):
        torch.manual_seed(step)
        model.balance_twice(balancer, mask_seed=step)
        learned = list(model.parameters())
        noise.apply(GradientContext(learned, model.shared, [list(head.parameters()) for head in model.heads], step))
        found.append(model.gradients())
        with torch.no_grad():
            for parameter, gradient in zip(learned, found[-1], strict=True):
                parameter.add_(gradient, alpha=-1e-2)
    return found


def test_gradients_are_finite_and_weights_come_back_bit_for_bit(build: Callable[[], Balancer]) -> None:
    balancer, model = build(), RepeatableModel(3)
    assert balancer.needs_recompute
    for step in range(3):
        before = [parameter.detach().clone() for parameter in model.parameters()]
        gradients, weights = model.balance_twice(balancer, mask_seed=step)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert any(bool(gradient.any()) for gradient in gradients)
        assert all(torch.equal(one, two) for one, two in zip(before, model.parameters(), strict=True))
        assert weights is None or weights.shape == (3,)
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-1e-2)


def test_saved_state_continues_with_the_same_bits_under_noise(build: Callable[[], Balancer]) -> None:
    balancer, model, noise = build(), RepeatableModel(3), GradientNoise(eta=0.1)
    noise.bind(binding(5))
    trace(balancer, model, 3, noise)
    state, noise_state = balancer.state_dict(), noise.state_dict()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    expected = trace(balancer, model, 3, noise, first=3)
    resumed, copy, resumed_noise = build(), RepeatableModel(3), GradientNoise(eta=0.1)
    copy.load_state_dict(weights)
    resumed.load_state_dict(state)
    resumed_noise.load_state_dict(noise_state)
    for one, two in zip(expected, trace(resumed, copy, 3, resumed_noise, first=3), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_reset_brings_back_the_first_step(build: Callable[[], Balancer]) -> None:
    balancer = build()
    runs = []
    for _ in range(2):
        runs.append(trace(balancer, RepeatableModel(3), 3, GradientNoise(eta=0.0)))
        balancer.reset()
    assert all(torch.equal(a, b) for one, two in zip(*runs, strict=True) for a, b in zip(one, two, strict=True))


def test_a_task_without_labels_is_survived_and_gets_no_gradient(build: Callable[[], Balancer]) -> None:
    balancer, model = build(), RepeatableModel(3)
    model.balance_twice(balancer)
    gradients, _ = model.balance_twice(balancer, absent=[1])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(not bool(parameter.grad.any()) for parameter in model.heads[1].parameters() if parameter.grad is not None)
    gradients, _ = model.balance_twice(balancer, absent=[0, 1, 2])
    assert all(not bool(gradient.any()) for gradient in gradients)


def test_gradients_are_added_to_what_is_there(build: Callable[[], Balancer]) -> None:
    balancer, model = build(), RepeatableModel(3)
    torch.manual_seed(0)
    alone, _ = model.balance_twice(balancer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    balancer.reset()
    torch.manual_seed(0)
    added, _ = model.add_twice(balancer)
    torch.testing.assert_close(added, [gradient + 1.0 for gradient in alone])


def test_without_a_way_to_repeat_the_batch_there_is_an_error(build: Callable[[], Balancer]) -> None:
    model = RepeatableModel(3)
    first = model.forward_pass()
    with pytest.raises(ConfigError, match="hands over no `recompute`"):
        build().backward(first.losses, BackwardContext(model.shared, [[], [], []], first.representation, 0))
