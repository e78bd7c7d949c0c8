from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graftwork.core.errors import ConfigError
from graftwork.evaluation.sharpness import worst_case_losses


def bowl(weights: nn.Parameter, curvature: Tensor) -> Tensor:
    return 0.5 * (curvature * weights**2).sum()


def test_climbing_finds_the_steepest_direction_of_a_bowl() -> None:
    weights = nn.Parameter(torch.tensor([0.01, 0.01, 0.01], dtype=torch.float64))
    sharp, flat = torch.tensor([100.0, 1.0, 1.0]).double(), torch.tensor([1.0, 1.0, 1.0]).double()
    before = weights.detach().clone()
    found = worst_case_losses(lambda: torch.stack([bowl(weights, sharp), bowl(weights, flat)]), [weights], 0.5, climbs=8)
    # the largest loss in the ball lies at (0.51, 0.01, 0.01) and, for the round bowl, along the diagonal
    assert found.climbed[0].item() == pytest.approx(0.5 * (100 * 0.51**2 + 2e-4), rel=1e-3)
    assert found.climbed[1].item() == pytest.approx(0.5 * (0.5 + 0.01 * 3**0.5) ** 2, rel=1e-4)
    assert bool((found.worst >= found.random).all())
    assert bool((found.worst >= found.center).all())
    torch.testing.assert_close(found.rise, found.worst - found.center)
    assert torch.equal(weights.detach(), before)


def test_random_directions_have_the_radius_and_repeat() -> None:
    weights = nn.Parameter(torch.zeros(50))
    seen: list[float] = []

    def losses() -> Tensor:
        seen.append(float(weights.detach().norm()))
        return weights.square().sum().unsqueeze(0)

    first = worst_case_losses(losses, [weights], 2.0, num_random=3, climbs=0, seed=5)
    assert seen == [0.0, *[pytest.approx(2.0, rel=1e-5)] * 3]
    assert float(first.random[0]) == pytest.approx(4.0, rel=1e-5)
    assert float(first.climbed[0]) == 0.0
    again = worst_case_losses(losses, [weights], 2.0, num_random=3, climbs=0, seed=5)
    assert torch.equal(first.random, again.random)


def test_sharper_models_measure_sharper() -> None:
    weights = nn.Parameter(torch.zeros(4))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    rises = []
    for curvature in (1.0, 10.0):
        scale = torch.full((4,), curvature)

        def losses(scale: Tensor = scale) -> Tensor:
            return torch.stack([bowl(weights, scale) + frozen.sum()])

        rises.append(float(worst_case_losses(losses, [weights, frozen], 0.1).rise[0]))
    assert rises[1] == pytest.approx(10 * rises[0], rel=1e-4)
    assert torch.equal(frozen, torch.ones(2))


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"`rho` must be above 0.*got rho=0, num_random=8, climbs=4"):
        worst_case_losses(lambda: torch.zeros(1), [], 0)
