from __future__ import annotations

import pytest

from graftwork.claims.costs import cheaper_than_fastest
from graftwork.claims.experiment import Arm, Recipe
from graftwork.claims.judgement import judge
from graftwork.core.errors import ConfigError


def make_recipe(factor: float = 1.0, implementations: tuple[str, ...] = ("rival", "rival-published")) -> Recipe:
    return Recipe(
        slug="mine",
        arms=tuple(Arm(name, name) for name in ("mine", "rival", "rival-published")),
        seeds=(0, 1),
        smoke_seeds=(0,),
        run_arm=lambda arm, seed, context: {},
        inequalities=(cheaper_than_fastest("is quick", "mine", implementations, factor=factor),),
    )


def results(mine: float, *rivals: tuple[float, float]) -> dict[int, dict[str, dict[str, float]]]:
    return {
        seed: {"mine": {"step_ms": mine}, "rival": {"step_ms": one}, "rival-published": {"step_ms": other}}
        for seed, (one, other) in enumerate(rivals)
    }


def test_the_fastest_implementation_counts_seed_by_seed() -> None:
    slower = results(40.0, (30.0, 80.0), (80.0, 30.0))
    finding = judge(make_recipe(), slower).findings[0]
    assert finding.left == "rival|rival-published.step_ms"
    assert finding.differences == (-10.0, -10.0)
    assert finding.state == "refuted"
    assert judge(make_recipe(factor=2.0), slower).findings[0].state == "shown"


def test_every_implementation_must_be_an_arm_and_measured() -> None:
    with pytest.raises(ConfigError, match="no arm 'rival-quick'"):
        make_recipe(implementations=("rival", "rival-quick"))
    measured = results(40.0, (30.0, 80.0), (30.0, 80.0))
    measured[1]["rival-published"] = {}
    with pytest.raises(ConfigError, match="arm 'rival-published' measured nothing"):
        judge(make_recipe(), measured)
