from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.core.errors import ConfigError
from graftwork.core.input_spec import table_input
from graftwork.core.records import TaskSpec
from graftwork.interfaces.controllable import Configuration
from graftwork.methods.sharing.ecmt import ECMT
from graftwork.recipes.sharing.ecmt import (
    ARMS,
    BUDGETS,
    RECIPE,
    TASKS,
    control,
    derive,
    preference,
    run_arm,
    volume,
    widest_within,
)


def test_volume_by_hand() -> None:
    one = [(50.0, 50.0, 50.0)]  # an eighth of the largest volume
    lean = [(100.0, 50.0, 50.0), (50.0, 100.0, 50.0)]  # two quarters that share an eighth
    assert volume([one]) == pytest.approx(12.5)
    assert volume([one, lean]) == pytest.approx((12.5 + 37.5) / 2)


def test_preferences_add_up() -> None:
    assert preference("depth", 0.8) == pytest.approx({"semantic": 0.1, "depth": 0.8, "edges": 0.1})
    assert sum(preference("edges", 1 / 3).values()) == pytest.approx(1.0)


def test_the_widest_network_within_a_budget() -> None:
    costs = {0.25: 0.09, 0.5: 0.28, 1.0: 1.0}
    assert [widest_within(costs, budget) for budget in (0.1, 0.28, 0.99, 1.0)] == [0.25, 0.5, 0.5, 1.0]
    with pytest.raises(ConfigError, match=r"as little as 0\.05"):
        widest_within(costs, 0.05)


def test_fixed_networks_by_hand() -> None:
    def fixed(score: float, megaflops: float) -> dict[str, float]:
        return {**{f"scores.{task}": score for task in TASKS}, "megaflops": megaflops}

    seed = {
        "fixed-25": fixed(10.0, 9.0),
        "fixed-50": fixed(20.0, 28.0),
        "fixed-75": fixed(40.0, 60.0),
        "fixed-100": fixed(50.0, 100.0),
    }
    found = derive(seed)
    assert [found[name]["score"] for name in seed] == pytest.approx([10.0, 20.0, 40.0, 50.0])
    # budgets of 25, 50, 75 and 100 % take widths 0.25, 0.5, 0.75 and 1
    assert found["fixed-100"]["hypervolume"] == pytest.approx((0.1 + 0.8 + 6.4 + 12.5) / 4)


class FakeProbe:
    """Scores of a task are its decoder's ratio plus the encoder's, in tenths of points, less one for edges at full preference."""

    def scores(self, configuration: Configuration) -> tuple[float, ...]:
        found = [10.0 * (configuration.encoder + configuration.decoders[task]) for task in TASKS]
        if configuration.decoders["edges"] == 1.0 and configuration.decoders["depth"] == 0.25:
            found[TASKS.index("edges")] -= 30.0
        return tuple(found)


def test_control_finds_the_task_that_loses() -> None:
    specs = [TaskSpec(name=task, kind="multiclass", size=2) for task in TASKS]
    model = ECMT(specs, inputs=table_input(4), channels=(32, 32), decoder_width=32)
    probe: Any = FakeProbe()
    changes, correlations = control(probe, model)
    assert len(changes) == len(BUDGETS) * len(TASKS)
    losing = [change for change in changes if change < 0]
    assert 1 <= len(losing) <= len(BUDGETS)
    assert min(changes) == pytest.approx(-30.0, abs=10.0)
    assert any(value > 0 for value in correlations)
    assert any(value < 0 for value in correlations)


def test_arms_differ_only_in_what_is_compared() -> None:
    assert RECIPE.arm("ecmt").settings == {"training": {}}, "the system runs at its defaults"
    assert len({arm.access for arm in ARMS}) == 1
    (budget,) = RECIPE.equal_budget
    assert not budget.arms
    assert {"steps", "samples", "labels"} <= set(budget.counters)


@pytest.mark.slow
def test_arms_measure_and_count_the_same(tmp_path: Path) -> None:
    counts = []
    for name in ("ecmt", "common", "fixed-50"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="ecmt", arm=name, access=arm.access.parts(), seed=0, smoke=True, work=tmp_path / name, shared=tmp_path / "shared"
        )
        measured = run_arm(arm, 0, context)
        assert ("hypervolume" in measured) == (name != "fixed-50")
        counts.append(context.counts)
    assert counts[0] == counts[1] == counts[2]
