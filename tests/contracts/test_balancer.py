"""What every balancer must do, whatever it balances: the Balancer seam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from balancing_models import TinyModel
from torch import Tensor

from graftwork.interfaces.balancer import Balancer
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.equal_weights import EqualWeights
from graftwork.methods.optimization.torchjd_bridge import AGGREGATORS, jacobian_balancer
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting

SETTINGS: dict[str, dict[str, Any]] = {
    "Constant": {"weights": [0.5, 1.0, 2.0]},
    "Krum": {"n_byzantine": 0, "n_selected": 1},
    "TrimmedMean": {"trim_number": 0},
}
RANDOM = {"GradDrop", "GradVac", "PCGrad", "Random"}
"""Draw from torch's global generator."""
NO_COMMON_DIRECTION = {"GradDrop", "Krum"}
"""Do not promise a weighted sum."""

BUILDERS: dict[str, Callable[[], Balancer]] = {
    "equal": EqualWeights,
    "uncertainty": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    **{
        f"{name}-{mode}": lambda name=name, mode=mode: jacobian_balancer(name, mode, **SETTINGS.get(name, {}))
        for name in AGGREGATORS
        for mode in ("parameters", "representation")
    },
}


@pytest.fixture(params=sorted(BUILDERS))
def build(request: pytest.FixtureRequest) -> Callable[[], Balancer]:
    return BUILDERS[request.param]


def trace(balancer: Balancer, model: TinyModel, num_steps: int, first: int = 0) -> list[list[Tensor]]:
    """Run some steps with a little movement of the weights in between; random methods draw the same numbers every time."""
    found = []
    for step in range(first, first + num_steps):
        torch.manual_seed(step)
        gradients, _ = model.balance(balancer)
        found.append(gradients)
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.add_(gradient, alpha=-1e-3)
    return found


def test_one_task_gets_its_plain_gradient(build: Callable[[], Balancer], request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["build"].startswith(("Constant", "uncertainty")):
        pytest.skip("weights are fixed for three tasks, or learned")
    model = TinyModel(1)
    gradients, _ = model.balance(build())
    losses, _ = model.losses()
    expected = torch.autograd.grad(losses.sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, list(expected))


def test_all_gradients_are_finite_and_own_parameters_are_served(build: Callable[[], Balancer]) -> None:
    model = TinyModel(3)
    gradients, weights = model.balance(build())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    losses, _ = model.losses()
    for index, head in enumerate(model.heads):
        own = torch.autograd.grad(losses[index], list(head.parameters()), retain_graph=True)
        received = [parameter.grad for parameter in head.parameters()]
        scale = received[1] / own[1]  # loss weights scale the head's gradient, gradient methods leave it alone
        assert float(scale) > 0
        torch.testing.assert_close(received, [part * scale for part in own])
    assert weights is None or weights.shape == (3,)


def test_identical_tasks_move_along_their_common_gradient(build: Callable[[], Balancer]) -> None:
    model = TinyModel(3)
    with torch.no_grad():
        for head in model.heads:
            head.weight.copy_(model.heads[0].weight)
            head.bias.copy_(model.heads[0].bias)
        model.targets[1:] = model.targets[0]
    torch.manual_seed(0)
    gradients, _ = model.balance(build())
    direction = torch.cat([gradient.flatten() for gradient in gradients[: len(model.shared)]])
    common = model.jacobian()[0]
    cosine = torch.cosine_similarity(direction, common, dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-5)


def test_a_task_without_labels_is_survived_and_gets_no_gradient(build: Callable[[], Balancer]) -> None:
    model = TinyModel(3)
    balancer = build()
    model.balance(balancer)
    gradients, _ = model.balance(balancer, absent=[1])
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert all(not bool(parameter.grad.any()) for parameter in model.heads[1].parameters() if parameter.grad is not None)


def test_a_batch_without_any_labels_moves_nothing(build: Callable[[], Balancer]) -> None:
    model = TinyModel(3)
    gradients, _ = model.balance(build(), absent=[0, 1, 2])
    assert all(not bool(gradient.any()) for gradient in gradients)


def test_reset_brings_back_the_first_step(build: Callable[[], Balancer]) -> None:
    balancer = build()
    first = trace(balancer, TinyModel(3), 3)
    balancer.end_epoch(torch.tensor([1.0, 2.0, 3.0]))
    balancer.reset()
    assert all(
        torch.equal(a, b)
        for one, two in zip(first, trace(balancer, TinyModel(3), 3), strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_saved_state_continues_with_the_same_numbers(build: Callable[[], Balancer]) -> None:
    balancer, model = build(), TinyModel(3)
    trace(balancer, model, 3)
    balancer.end_epoch(torch.tensor([1.0, 2.0, 3.0]))
    balancer.end_epoch(torch.tensor([0.5, 1.9, 3.0]))
    state, weights = balancer.state_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    expected = trace(balancer, model, 2, first=3)
    resumed, copy = build(), TinyModel(3)
    copy.load_state_dict(weights)
    resumed.load_state_dict(state)
    for one, two in zip(expected, trace(resumed, copy, 2, first=3), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def test_gradients_are_added_to_what_is_there(build: Callable[[], Balancer]) -> None:
    model = TinyModel(3)
    torch.manual_seed(0)
    alone, _ = model.balance(build())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    losses, representation = model.losses()
    torch.manual_seed(0)
    build().backward(losses, model.context(representation))
    torch.testing.assert_close(model.gradients(), [gradient + 1.0 for gradient in alone])
