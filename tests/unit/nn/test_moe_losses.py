"""Losses of routers by hand, and what they ask for."""

from __future__ import annotations

import math

import pytest
import torch

from graftwork.nn.moe_losses import (
    RoutingRecord,
    balance_loss,
    expert_usage,
    mutual_information_loss,
    squared_variation,
)
from graftwork.nn.moe_router import Router


def record(task: int, probabilities: list[float], load: list[float] | None = None, tokens: int = 10) -> RoutingRecord:
    values = torch.tensor(probabilities, requires_grad=True)
    counts = torch.tensor(probabilities if load is None else load)
    return RoutingRecord(task, values, values, counts, counts, tokens)


def test_balance_by_hand() -> None:
    # mean 2, variance (n - 1) 2: 0.5; load 0.5, too. Twice, since calls add up.
    calls = [record(0, [1.0, 3.0]), record(1, [3.0, 1.0])]
    assert balance_loss(calls).item() == pytest.approx(2.0)
    assert balance_loss([record(0, [2.0, 2.0])]).item() == pytest.approx(0.0)
    assert balance_loss([record(0, [1.0, 3.0], load=[2.0, 2.0])]).item() == pytest.approx(0.5)
    assert balance_loss([record(0, [0.0, 0.0], tokens=0)]).item() == 0.0
    assert squared_variation(torch.tensor([4.0])).item() == 0.0


def test_mutual_information_by_hand() -> None:
    # P = [[3/8, 1/8], [1/8, 3/8]]: information 0.75 log 1.5 + 0.25 log 0.5
    calls = [record(0, [3.0, 1.0]), record(1, [1.0, 3.0])]
    assert mutual_information_loss(calls).item() == pytest.approx(-(0.75 * math.log(1.5) + 0.25 * math.log(0.5)))


def test_mutual_information_at_its_ends() -> None:
    assert mutual_information_loss([record(0, [4.0, 0.0]), record(1, [0.0, 4.0])]).item() == pytest.approx(-math.log(2))
    assert mutual_information_loss([record(0, [1.0, 3.0]), record(1, [2.0, 6.0])]).item() == pytest.approx(0.0, abs=1e-6)
    assert mutual_information_loss([record(0, [1.0, 3.0])]).item() == pytest.approx(0.0, abs=1e-6), "one task tells nothing"


def test_two_calls_of_one_task_are_one_task() -> None:
    halves = [record(0, [1.0, 0.5]), record(0, [2.0, 0.5]), record(1, [1.0, 3.0])]
    whole = [record(0, [3.0, 1.0]), record(1, [1.0, 3.0])]
    torch.testing.assert_close(mutual_information_loss(halves), mutual_information_loss(whole))


def test_tasks_that_see_fewer_experts_have_probability_zero_for_the_others() -> None:
    short = mutual_information_loss([record(0, [4.0]), record(1, [0.0, 4.0])])
    assert short.item() == pytest.approx(-math.log(2))


def test_gradients_pull_tasks_apart_and_are_finite_at_zero() -> None:
    calls = [record(0, [3.0, 1.0, 0.0]), record(1, [1.0, 3.0, 0.0])]
    mutual_information_loss(calls).backward()
    gradient = calls[0].probabilities.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert gradient[0] < 0 < gradient[1], "task 0 is pulled towards expert 0"


def test_descent_on_routers_gives_each_task_its_experts() -> None:
    torch.manual_seed(0)
    router, tokens = Router(4, 4, num_tasks=2), torch.randn(200, 4) + 1.0
    optimizer = torch.optim.Adam(router.parameters(), lr=0.05)
    for _ in range(150):
        calls = []
        for task in range(2):
            shares = router(tokens, 1, task).probabilities.sum(dim=0)
            calls.append(RoutingRecord(task, shares, shares, shares.detach(), shares.detach(), 200))
        loss = mutual_information_loss(calls)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < -0.9 * math.log(2)


def test_usage_is_a_share_of_choices() -> None:
    calls = {"a": [record(0, [0.0], load=[2.0, 6.0]), record(0, [0.0], load=[0.0, 2.0]), record(1, [0.0], load=[5.0, 0.0])]}
    found = expert_usage(calls)
    assert found["a"][0].tolist() == pytest.approx([0.2, 0.8])
    assert found["a"][1].tolist() == [1.0, 0.0]
