from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.claims.experiment import Access, Arm, Demand, EqualBudget, Inequality, Recipe
from graftwork.claims.judgement import decide, derive_measurements, flatten_measurements, judge
from graftwork.core.errors import ConfigError, GraftworkError
from graftwork.core.records import Interval


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
    with pytest.raises(ConfigError, match=r"no dot, slash or bar; got 'a\.b'"):
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
    ("mine", "state", "reason"),
    [
        ([0.4, 0.4, 0.4, 0.4, 0.5], "refuted", r"excludes a difference of 0\.5"),
        ([-1.0, -1.1, -1.0, -0.9, -1.0], "refuted", r"excludes a difference of 0\.5"),
        ([9, -3, 4, -2, 5], "open", "does not exclude 0"),
        ([0.2, 0.6, 0.3, 0.5, 0.4], "open", r"below the margin of 0\.5, and the interval reaches it"),
        ([3.0, 3.2, -0.001, 2.9, -0.001], "open", "does not exclude 0|in 3 of 5 seeds, 4 are needed"),
    ],
)
def test_what_is_not_shown_is_refuted_or_open(mine: list[float], state: str, reason: str) -> None:
    finding = judge(make_recipe(), results_of([0, 0, 0, 0, 0], mine)).findings[0]
    assert finding.state == state
    assert re.search(reason, finding.reason)


def test_lacking_signs_leave_it_open() -> None:
    recipe = make_recipe(inequalities=(Inequality("cost", "mine.score", -9.0, demand="at least", min_sign_seeds=5),))
    assert judge(recipe, results_of([0] * 5, [1, 1, 1, 1, 2])).findings[0].state == "shown"
    recipe = make_recipe(inequalities=(Inequality("gain", "mine.score", 0.0, min_sign_seeds=5),))
    verdict = judge(recipe, results_of([0] * 5, [1, 1, 1, 1, -0.01]))
    assert (verdict.word, verdict.findings[0].reason) == ("open", "the sign holds in 4 of 5 seeds, 5 are needed")


def test_better_of_equal_numbers_is_refuted() -> None:
    recipe = make_recipe(inequalities=(Inequality("gain", "mine.score", "base.score"),))
    assert judge(recipe, results_of([1] * 5, [1] * 5)).findings[0].state == "refuted"


@pytest.mark.parametrize(
    ("mine", "state"),
    [
        ([-0.2, 0.1, -0.1, 0.2, -0.1], "shown"),
        ([-0.3, -0.31, -0.29, -0.3, -0.3], "shown"),
        ([-0.9, -0.8, -0.9, -1.0, -0.9], "refuted"),
        ([-2, 1, -3, 2, -2], "open"),
        ([3] * 5, "shown"),
        ([-0.5] * 5, "shown"),
    ],
)
def test_not_worse_is_shown_within_the_margin(mine: list[float], state: str) -> None:
    recipe = make_recipe(inequalities=(Inequality("x", "mine.score", "base.score", margin=0.5, demand="not worse"),))
    assert judge(recipe, results_of([0] * 5, mine)).findings[0].state == state


@pytest.mark.parametrize(
    ("mine", "state"),
    [
        ([0.7] * 5, "shown"),
        ([0.5] * 5, "shown"),
        ([0.49] * 5, "refuted"),
        ([0.2, 0.9, 0.7, 0.8, 0.3], "open"),
        ([0.1, 0.2, 0.1, 0.2, 0.1], "refuted"),
    ],
)
def test_at_least_takes_the_interval_as_well(mine: list[float], state: str) -> None:
    recipe = make_recipe(inequalities=(Inequality("cost", "mine.score", "base.score", margin=0.5, demand="at least"),))
    assert judge(recipe, results_of([0] * 5, mine)).findings[0].state == state


@given(
    st.sampled_from(["better", "not worse", "at least"]),
    st.floats(0, 2),
    st.floats(-5, 5),
    st.floats(0, 3),
    st.floats(0.01, 3),
)
def test_more_seeds_of_the_same_never_turn_a_decision_around(
    demand: Demand, margin: float, mean: float, half: float, shrink: float
) -> None:
    wide = Interval(mean, mean - half, mean + half)
    narrow = Interval(mean, mean - half / (1 + shrink), mean + half / (1 + shrink))
    before, after = (decide(demand, margin, interval, 5, 0, 5)[0] for interval in (wide, narrow))
    assert before == "open" or after == before


def test_looks_come_in_order_and_the_last_one_counts() -> None:
    recipe = make_recipe(seeds=(), inequalities=(Inequality("beats it", "mine.score", "base.score"),))
    assert (recipe.looks, recipe.seeds) == ((3, 5, 8, 13, 20), tuple(range(20)))
    gains = [1.0, 1.4, 0.8, 1.2, 0.9, 1.1, 1.3, 1.0]
    finding = judge(recipe, results_of([0] * 8, gains)).findings[0]
    # Five seeds have a plain interval far above 0, and the look after five allows no decision yet.
    assert [(look.seeds, look.state) for look in finding.looks] == [(3, "open"), (5, "open"), (8, "shown")]
    assert finding.looks[-1].difference == finding.difference
    assert judge(recipe, results_of([0] * 8, gains), looks=(8,)).findings[0].difference.low > finding.difference.low


def test_between_looks_nothing_is_decided() -> None:
    verdict = judge(make_recipe(), results_of([0] * 4, [1.0, 1.1, 1.2, 1.1]))
    assert verdict.word == "open"
    assert verdict.findings[0].reason == "no look is planned after 4 seeds"
    assert not verdict.is_decided


def test_recipes_plan_their_looks() -> None:
    assert make_recipe().looks == (5,)
    assert make_recipe(looks=(3, 5)).looks == (3, 5)
    assert make_recipe(seeds=(), looks=(4, 8)).seeds == tuple(range(8))
    with pytest.raises(ConfigError, match=r"the last one is after all 5 seeds; got \(3, 8\)"):
        make_recipe(looks=(3, 8))
    with pytest.raises(ConfigError, match="at least 2 seeds after the one before"):
        make_recipe(looks=(4, 5))


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
    assert judge(make_recipe(seeds=(0, 1, 2), inequalities=(sure, never)), results).word == "mixed"
    secondary = Inequality("never", "base.score", "mine.score", primary=False)
    assert judge(make_recipe(seeds=(0, 1, 2), inequalities=(sure, secondary)), results).word == "holds"
    assert judge(make_recipe(seeds=(0, 1, 2), inequalities=(never,)), results).word == "contradicted"


def test_one_seed_never_shows_a_gain() -> None:
    assert judge(make_recipe(), results_of([0], [9])).word == "open"


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
