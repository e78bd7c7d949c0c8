from __future__ import annotations

import re
from typing import Any

import pytest

from graftwork.claims.experiment import Access, Arm, EqualBudget, Inequality, Recipe
from graftwork.claims.judgement import derive_measurements, flatten_measurements, judge
from graftwork.core.errors import ConfigError, GraftworkError


def make_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "slug": "toy",
        "arms": (Arm("base", "baseline"), Arm("mine", "the method")),
        "seeds": (0, 1, 2, 3, 4),
        "smoke_seeds": (0,),
        "run_arm": lambda arm, seed, context: {"score": 1.0},
        "inequalities": (Inequality("beats it", "mine.score", "base.score", margin=0.5, min_sign_seeds=4),),
    }
    return Recipe(**{**fields, **changes})


def results_of(base: list[float], mine: list[float]) -> dict[int, dict[str, dict[str, float]]]:
    return {seed: {"base": {"score": a}, "mine": {"score": b}} for seed, (a, b) in enumerate(zip(base, mine, strict=True))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": (Arm("base", ""), Arm("base", ""), Arm("mine", ""))}, "arm 'base' is there twice"),
        ({"seeds": (0, 0)}, r"at least two different ones are needed .* got \(0, 0\)"),
        ({"smoke_seeds": ()}, "smoke_seeds: at least one"),
        ({"inequalities": ()}, "at least one must be primary"),
        ({"inequalities": (Inequality("x", "your.score", 0.0),)}, "inequality 'x': no arm 'your'; the arms are base, mine"),
        ({"inequalities": (Inequality("x", "mine.score", 0.0, min_sign_seeds=9),)}, "9 signs asked of 5 seeds"),
        ({"equal_budget": (EqualBudget(("stepps",)),)}, "no counter 'stepps'; the counters are steps, samples"),
        ({"equal_budget": (EqualBudget(("steps",), ("yours",)),)}, "equal_budget: no arm 'yours'"),
    ],
)
def test_inconsistent_recipes_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_recipe(**changes)


def test_arm_and_inequality_check_their_names() -> None:
    with pytest.raises(ConfigError, match=r"no dot or slash; got 'a\.b'"):
        Arm("a.b", "")
    with pytest.raises(ConfigError, match=r"a side is 'arm\.metric'; got 'mine'"):
        Inequality("x", "mine", 0.0)
    with pytest.raises(ConfigError, match=r"margin must be at least 0; got -1"):
        Inequality("x", "mine.score", 0.0, margin=-1)


def test_access_names_its_parts() -> None:
    assert Access(source_labels=True, test_batches=True).parts() == {"source_labels", "test_batches"}


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(ConfigError, match="no arm 'his'; its arms are base, mine"):
        make_recipe().arm("his")


def test_clear_gain_holds_with_its_numbers() -> None:
    verdict = judge(make_recipe(), results_of([0, 0, 0, 0, 0], [1, 2, 3, 2, 2]))
    finding = verdict.findings[0]
    assert verdict.word == "holds"
    assert finding.differences == (1, 2, 3, 2, 2)
    assert finding.difference.value == pytest.approx(2.0)
    # standard deviation sqrt(0.5), t quantile 2.776 for 4 degrees of freedom
    assert finding.difference.low == pytest.approx(2 - 2.7764 * 0.5**0.5 / 5**0.5, abs=1e-3)
    assert (finding.signs, finding.min_sign_seeds) == (5, 4)


@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        ([0.4, 0.4, 0.4, 0.4, 0.5], r"below the margin of 0\.5"),
        ([9, -3, 4, -2, 5], "does not exclude 0"),
        ([2.0, 2.2, -0.001, -0.001, 2.1], "does not exclude 0|in 3 of 5 seeds, 4 are needed"),
    ],
)
def test_weak_gains_do_not_hold(mine: list[float], reason: str) -> None:
    verdict = judge(make_recipe(), results_of([0, 0, 0, 0, 0], mine))
    assert verdict.word == "does not hold"

    assert re.search(reason, verdict.findings[0].reason)


def test_signs_alone_can_decide() -> None:
    recipe = make_recipe(inequalities=(Inequality("cost", "mine.score", "base.score", demand="at least", min_sign_seeds=5),))
    verdict = judge(recipe, results_of([0] * 5, [1, 1, 1, 1, -0.5]))
    assert verdict.findings[0].reason == "the sign holds in 4 of 5 seeds, 5 are needed"


@pytest.mark.parametrize(
    ("mine", "holds"),
    [
        ([-0.2, 0.1, -0.1, 0.2, -0.1], True),
        ([-0.3, -0.31, -0.29, -0.3, -0.3], False),
        ([-2, 1, -3, 2, -2], False),
        ([3] * 5, True),
    ],
)
def test_not_worse_allows_chance_but_no_clear_loss(mine: list[float], holds: bool) -> None:
    recipe = make_recipe(inequalities=(Inequality("x", "mine.score", "base.score", margin=0.5, demand="not worse"),))
    assert (judge(recipe, results_of([0] * 5, mine)).word == "holds") is holds


def test_factors_and_constants() -> None:
    recipe = make_recipe(
        inequalities=(
            Inequality("cost", "base.score", "mine.score", left_factor=2.5, demand="at least"),
            Inequality("above chance", "mine.score", 0.5, demand="at least", primary=False),
        )
    )
    verdict = judge(recipe, results_of([1.0, 1.0], [2.0, 2.4]))
    assert verdict.findings[0].differences == pytest.approx((0.5, 0.1))
    assert verdict.findings[0].left == "2.5 x base.score"
    assert verdict.findings[1].differences == pytest.approx((1.5, 1.9))


def test_primary_inequalities_make_the_verdict() -> None:
    sure = Inequality("sure", "mine.score", "base.score")
    never = Inequality("never", "base.score", "mine.score")
    results = results_of([0, 0, 0], [1, 2, 1.5])
    assert judge(make_recipe(inequalities=(sure, never)), results).word == "partly"
    secondary = Inequality("never", "base.score", "mine.score", primary=False)
    assert judge(make_recipe(inequalities=(sure, secondary)), results).word == "holds"
    assert judge(make_recipe(inequalities=(never,)), results).word == "does not hold"


def test_one_seed_never_shows_a_gain() -> None:
    assert judge(make_recipe(), results_of([0], [9])).word == "does not hold"


def test_more_seeds_ask_for_more_signs() -> None:
    assert judge(make_recipe(), results_of([0] * 10, [1] * 10)).findings[0].min_sign_seeds == 8


def test_missing_measurement_is_named() -> None:
    with pytest.raises(ConfigError, match=r"needs 'mine\.score', but arm 'mine' measured other"):
        judge(
            make_recipe(),
            {0: {"base": {"score": 1.0}, "mine": {"other": 1.0}}, 1: {"base": {"score": 1.0}, "mine": {"other": 1.0}}},
        )


def test_nested_measurements_are_flattened() -> None:
    assert flatten_measurements({"a": {"b": {"c": 1}}, "d": True}) == {"a.b.c": 1.0, "d": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good", None])
def test_measurements_are_finite_numbers(value: Any) -> None:
    with pytest.raises(GraftworkError, match=r"Arm 'x' measured a\.b? ?=|finite"):
        flatten_measurements({"a": {"b": value}}, where="Arm 'x'")


def test_derived_measurements_see_all_arms_of_a_seed() -> None:
    recipe = make_recipe(derive=lambda arms: {"mine": {"gain": {"score": arms["mine"]["score"] - arms["base"]["score"]}}})
    complete = derive_measurements(recipe, results_of([1, 2], [3, 3]))
    assert [complete[seed]["mine"]["gain.score"] for seed in (0, 1)] == [2.0, 1.0]
    assert "gain.score" not in complete[0]["base"]
