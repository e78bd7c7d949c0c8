from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.methods.optimization.jacobian import JacobianBalancer
from graftwork.methods.optimization.torchjd_bridge import jacobian_balancer
from graftwork.recipes.optimization.flat_mtl import AGGREGATORS, ARMS, RECIPE, TwoTaskCAGrad, derive, run_arm


def measured(accuracy: float, left: float, right: float) -> dict[str, float]:
    return {"accuracy": accuracy, "worst.top_left": left, "worst.bottom_right": right}


def test_pooling_by_hand() -> None:
    seed = {f"{short}-erm": measured(90.0 + index, 3.0, 6.0 + index) for index, short in enumerate(AGGREGATORS)}
    seed |= {f"{short}-flat": measured(93.0, 1.0 + index, 2.0) for index, short in enumerate(AGGREGATORS)}
    found = derive(seed)
    assert found["mean-erm"] == {"pooled_accuracy": 91.0, "pooled_worst": {"top_left": 3.0, "bottom_right": 7.0}}
    assert found["mean-flat"] == {"pooled_accuracy": 93.0, "pooled_worst": {"top_left": 2.0, "bottom_right": 2.0}}


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_two_tasks_are_solved_as_by_the_general_solver(c: float, scale: float) -> None:
    general = jacobian_balancer("CAGrad", c=c)
    assert isinstance(general, JacobianBalancer)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        rows = torch.randn(2, 4, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [scale]])
        expected, _ = general.aggregator.combine_(rows.clone(), torch.tensor([True, True]))
        found, weights = TwoTaskCAGrad(c).combine_(rows.clone(), torch.tensor([True, True]))
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
        assert weights is not None
        assert bool((weights >= 0.5 - 1e-9).all())


def test_two_tasks_without_a_common_direction_stand_still() -> None:
    row = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    found, _ = TwoTaskCAGrad().combine_(torch.cat([row, -row]), torch.tensor([True, True]))
    assert found.abs().max() < 1e-9
    alone, _ = TwoTaskCAGrad().combine_(torch.cat([row, 0 * row]), torch.tensor([True, False]))
    assert torch.allclose(alone, row[0])


def test_pairs_differ_in_what_is_compared_only() -> None:
    for short in [*AGGREGATORS]:
        plain, flat = RECIPE.arm(f"{short}-erm").settings, RECIPE.arm(f"{short}-flat").settings
        assert {key for key in plain if plain[key] != flat[key]} == {"kind"}
    assert {arm.access for arm in ARMS} == {ARMS[0].access}
    assert "mean-long" not in RECIPE.equal_budget[0].arms
    pilot = RECIPE.pilot
    assert pilot is not None
    for short in [*AGGREGATORS]:
        assert pilot.follows.get(f"{short}-erm", "mean-erm") == "mean-erm"
        assert pilot.follows.get(f"{short}-flat", "mean-flat") == "mean-flat"


@pytest.mark.slow
def test_arms_count_the_same_and_the_long_one_twice_as_much(tmp_path: Path) -> None:
    counts = {}
    for name in ("pcgrad-erm", "pcgrad-flat", "mean-long"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="flat-mtl",
            arm=name,
            access=arm.access.parts(),
            seed=0,
            smoke=True,
            work=tmp_path / name,
            shared=tmp_path / "shared",
        )
        found = run_arm(arm, 0, context)
        assert all(found["rise"][place] >= 0 for place in ("top_left", "bottom_right"))
        counts[name] = context.counts
    assert counts["pcgrad-erm"] == counts["pcgrad-flat"]
    assert counts["mean-long"]["steps"] == 2 * counts["pcgrad-erm"]["steps"]
