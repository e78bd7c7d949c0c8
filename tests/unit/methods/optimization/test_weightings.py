from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from balancing_models import TinyModel
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.errors import ConfigError
from graftwork.core.records import TaskSpec
from graftwork.methods.optimization.dwa import DynamicWeightAverage
from graftwork.methods.optimization.uncertainty import UncertaintyWeighting


def test_uncertainty_by_hand() -> None:
    balancer = UncertaintyWeighting(["regression", "classification"], initial_log_variance=math.log(4.0))
    scalar, weights = balancer.scalarize(torch.tensor([2.0, 3.0]))
    assert weights.tolist() == pytest.approx([1 / 8, 1 / 4])
    assert scalar.item() == pytest.approx(2 / 8 + 3 / 4 + 2 * math.log(2.0))


def test_uncertainty_starts_as_the_plain_sum() -> None:
    scalar, weights = UncertaintyWeighting().scalarize(torch.tensor([2.0, 3.0]))
    assert scalar.item() == 5.0
    assert weights.tolist() == [1.0, 1.0]


def test_uncertainty_learns_the_inverse_of_the_loss() -> None:
    """The minimum over s of ``L / 2 exp(-s) + s / 2`` is at ``exp(s) = L``; of the classification form at ``exp(s) = 2 L``."""
    balancer = UncertaintyWeighting(["regression", "classification"])
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        balancer.scalarize(torch.tensor([0.5, 3.0]))[0].backward()
        optimizer.step()
    assert balancer.log_variance[:2].exp().tolist() == pytest.approx([0.5, 6.0], rel=1e-3)
    assert not bool(balancer.log_variance[2:].any())


def test_uncertainty_does_not_move_for_a_task_without_labels() -> None:
    balancer = UncertaintyWeighting()
    balancer.scalarize(torch.tensor([2.0, 0.0]))[0].backward()
    assert balancer.log_variance.grad is not None
    assert balancer.log_variance.grad[:2].tolist() == [pytest.approx(-1.5), 0.0]


def test_uncertainty_scales_gradients_of_the_model() -> None:
    model, balancer = TinyModel(2), UncertaintyWeighting(initial_log_variance=math.log(2.0))
    found, _ = model.balance(balancer)
    losses, _ = model.losses()
    expected = torch.autograd.grad(losses.sum() / 2, list(model.parameters()))
    torch.testing.assert_close(found, list(expected))


def test_uncertainty_makes_room_for_all_tasks() -> None:
    balancer = UncertaintyWeighting(initial_log_variance=0.5)
    tasks = [TaskSpec(name=f"t{index}", kind="regression", size=1) for index in range(200)]
    (parameter,) = balancer.parameters()
    binding: Any = SimpleNamespace(tasks=tasks, device=torch.device("cpu"))
    balancer.bind(binding)
    assert balancer.parameters()[0] is parameter, "an optimiser may hold it"
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    balancer.scalarize(torch.linspace(0.1, 9.0, 200))[0].backward()
    optimizer.step()
    assert parameter[0] < 0.5 < parameter[199]
    other = UncertaintyWeighting()
    other.bind(binding)
    other.load_state_dict(balancer.state_dict())
    torch.testing.assert_close(other.log_variance, parameter)
    few: Any = SimpleNamespace(tasks=tasks[:3], device=torch.device("cpu"))
    small = UncertaintyWeighting()
    small.bind(few)
    assert len(small.log_variance) == 64, "checkpoints of few tasks stay as they were"


def test_uncertainty_errors() -> None:
    with pytest.raises(ConfigError, match="`forms` holds 'regression' or 'classification' for each task; got 'ordinal'"):
        UncertaintyWeighting(["ordinal"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="`forms` has 1 entries for 2 tasks"):
        UncertaintyWeighting(["regression"]).scalarize(torch.ones(2))
    with pytest.raises(ConfigError, match="`max_tasks` is 1, but there are 2 tasks"):
        UncertaintyWeighting(max_tasks=1).scalarize(torch.ones(2))
    with pytest.raises(ConfigError, match="`max_tasks` must be at least 1; got 0"):
        UncertaintyWeighting(max_tasks=0)


def test_dwa_by_hand() -> None:
    balancer = DynamicWeightAverage()
    losses = torch.tensor([2.0, 3.0])
    assert balancer.scalarize(losses)[1].tolist() == [1.0, 1.0]
    balancer.end_epoch(torch.tensor([1.0, 1.0]))
    assert balancer.scalarize(losses)[1].tolist() == [1.0, 1.0]
    balancer.end_epoch(torch.tensor([0.5, 1.0]))
    scalar, weights = balancer.scalarize(losses)
    first, second = math.exp(0.5 / 2), math.exp(1.0 / 2)
    expected = [2 * first / (first + second), 2 * second / (first + second)]
    assert weights.tolist() == pytest.approx(expected)
    assert scalar.item() == pytest.approx(2 * expected[0] + 3 * expected[1])
    balancer.end_epoch(torch.tensor([0.5, 0.1]))  # now the second falls faster
    assert balancer.scalarize(losses)[1][0] > 1


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)), min_size=1, max_size=6), st.floats(0.1, 10.0))
def test_dwa_weights_sum_to_the_number_of_tasks(epochs: list[tuple[float, float]], temperature: float) -> None:
    balancer = DynamicWeightAverage(temperature)
    before, now = zip(*epochs, strict=True)
    balancer.end_epoch(torch.tensor(before))
    balancer.end_epoch(torch.tensor(now))
    weights = balancer.scalarize(torch.ones(len(epochs)))[1]
    assert float(weights.sum()) == pytest.approx(len(epochs), rel=1e-4)
    ratios = [a / b for a, b in zip(now, before, strict=True)]
    assert float(weights[ratios.index(max(ratios))]) == pytest.approx(float(weights.max()))


@pytest.mark.parametrize("odd", [math.nan, math.inf, 0.0, -1.0])
def test_dwa_counts_a_task_without_a_ratio_as_standing_still(odd: float) -> None:
    balancer = DynamicWeightAverage()
    balancer.end_epoch(torch.tensor([1.0, odd]))
    balancer.end_epoch(torch.tensor([1.0, 1.0]))
    assert balancer.scalarize(torch.ones(2))[1].tolist() == pytest.approx([1.0, 1.0])


def test_dwa_state_is_json_even_with_an_undefined_mean() -> None:
    import json

    balancer = DynamicWeightAverage()
    balancer.end_epoch(torch.tensor([math.nan, 2.0]))
    balancer.end_epoch(torch.tensor([1.0, 1.0]))
    copy = DynamicWeightAverage()
    copy.load_state_dict(json.loads(json.dumps(balancer.state_dict(), allow_nan=False)))
    assert torch.equal(copy.scalarize(torch.ones(2))[1], balancer.scalarize(torch.ones(2))[1])


def test_dwa_error() -> None:
    with pytest.raises(ConfigError, match="`temperature` must be above 0; got 0"):
        DynamicWeightAverage(0)
