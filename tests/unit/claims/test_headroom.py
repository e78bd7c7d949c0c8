from __future__ import annotations

from typing import Any

import pytest

from graftwork.claims.experiment import Arm, Headroom, Inequality, Recipe
from graftwork.claims.headroom import measure_headroom
from graftwork.claims.judgement import judge
from graftwork.core.errors import ConfigError

ARMS = (Arm("base", "baseline"), Arm("mine", "the method"), Arm("oracle", "knows the labels"))
GAIN = Inequality("beats it", "mine.score", "base.score", margin=1.0)
COST = Inequality("is cheaper", "base.cost", "mine.cost", demand="at least")


def make_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "slug": "toy",
        "arms": ARMS,
        "seeds": (0, 1, 2, 3),
        "smoke_seeds": (0,),
        "run_arm": lambda arm, seed, context: {},
        "inequalities": (GAIN,),
        "headroom": (Headroom("oracle.score", "base.score", margin=1.0, unit="points"),),
    }
    return Recipe(**{**fields, **changes})


def results_of(mine: float, oracle: list[float]) -> dict[int, dict[str, dict[str, float]]]:
    return {
        seed: {
            "base": {"score": 0.0, "cost": 3.0},
            "mine": {"score": mine + 0.01 * seed, "cost": 1.0},
            "oracle": {"score": value, "cost": 1.0},
        }
        for seed, value in enumerate(oracle)
    }


@pytest.mark.parametrize(
    ("oracle", "state"),
    [
        ([5.0, 5.1, 4.9, 5.0], "shown"),
        ([2.0, 2.1, 2.0, 2.1], "shown"),
        ([1.5, 1.4, 1.6, 1.5], "refuted"),
        ([9.0, -1.0, 8.0, -3.0], "open"),
        ([2.5, 0.5, 2.0, 1.0], "open"),
    ],
)
def test_the_bound_must_be_two_margins_ahead(oracle: list[float], state: str) -> None:
    recipe = make_recipe()
    found = measure_headroom(recipe.headroom, results_of(0.0, oracle), ["beats it"])[0]
    assert (found.needed, found.state) == (2.0, state)
    word = judge(recipe, results_of(1.4, oracle)).word
    assert word == ("holds" if state == "shown" else "open"), "without headroom nothing is judged, whatever the numbers"


@pytest.mark.parametrize(("best", "state"), [(0.5, "refuted"), (4.0, "shown")])
def test_the_best_value_of_a_metric_is_a_bound_too(best: float, state: str) -> None:
    recipe = make_recipe(headroom=(Headroom(best, "base.score", margin=1.0),))
    found = measure_headroom(recipe.headroom, results_of(0.0, [0.0] * 4), ["beats it"])[0]
    assert (found.bound, found.state, found.difference.value) == (f"{best:g}", state, best)
    assert found.sentence.startswith(f"{best:g} is ahead of base.score by {best:.3g}")


def test_without_headroom_a_refuted_claim_stays_open_and_says_why() -> None:
    verdict = judge(make_recipe(), results_of(-4.0, [0.1, 0.2, 0.1, 0.0]))
    assert verdict.word == "open"
    assert verdict.reason.startswith("this setting cannot show it: oracle.score is ahead of base.score by 0.1 points")
    assert verdict.reason.endswith("at least 2 are needed")
    assert verdict.findings[0].reason == verdict.reason
    assert verdict.is_decided, "more seeds would not make the setting better"
    # The looks keep what the numbers alone would have said.
    assert verdict.findings[0].looks[-1].state == "refuted"


def test_headroom_that_may_still_come_is_waited_for() -> None:
    verdict = judge(make_recipe(seeds=(), looks=(4, 8)), results_of(1.4, [9.0, -1.0, 8.0, -3.0]))
    assert not verdict.is_decided
    assert verdict.reason.startswith("so far nothing says that this setting can show it: oracle.score is ahead")


def test_inequalities_that_need_none_are_judged() -> None:
    headroom = (Headroom("oracle.score", "base.score", margin=1.0, inequalities=("beats it",)),)
    verdict = judge(make_recipe(inequalities=(GAIN, COST), headroom=headroom), results_of(-4.0, [0.1, 0.2, 0.1, 0.0]))
    assert [finding.state for finding in verdict.findings] == ["open", "shown"]
    assert verdict.word == "partly"


def test_lower_may_be_better() -> None:
    recipe = make_recipe(headroom=(Headroom("oracle.cost", "base.cost", margin=0.5, lower_is_better=True),))
    assert judge(recipe, results_of(1.4, [0.0] * 4)).headroom[0].difference.value == 2.0
    assert judge(recipe, results_of(1.4, [0.0] * 4)).word == "holds"


def test_unmeasured_headroom_is_said() -> None:
    assert judge(make_recipe(headroom=()), results_of(1.4, [0.0] * 4)).reason.endswith("; no headroom is declared")


@pytest.mark.parametrize(
    ("headroom", "message"),
    [
        (Headroom("god.score", "base.score", margin=1.0), "one of the arms base, mine, oracle; got 'god.score'"),
        (Headroom("oracle", "base.score", margin=1.0), "a side is 'arm.metric'"),
        (Headroom("oracle.score", "base.score", margin=-1.0), "the margin is at least 0 .* lower_is_better"),
        (Headroom("oracle.score", "base.score", margin=1.0, inequalities=("is new",)), "there is no inequality 'is new'"),
    ],
)
def test_headroom_of_other_names_is_refused(headroom: Headroom, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(headroom=(headroom,))


def test_a_metric_that_was_not_measured_is_named() -> None:
    recipe = make_recipe(headroom=(Headroom("oracle.skill", "base.score", margin=1.0),))
    with pytest.raises(ConfigError, match=r"needs 'oracle\.skill', but arm 'oracle' measured cost, score"):
        judge(recipe, results_of(1.0, [1.0] * 4))
