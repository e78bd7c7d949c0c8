"""The schedule: fits into the time, equal steps where it must be equal, nothing that answers a question is left out."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.core.records import Plan, Role
from graftwork.core.stages.train import TrainStage
from graftwork.workflows.runs.effort import Effort, RaceBudget, efforts, full_effort, least_efforts
from graftwork.workflows.runs.horizons import MOST_EPOCHS, essential_plans, race_seconds
from graftwork.workflows.runs.plan_costs import Estimate, measured_cost
from graftwork.workflows.runs.schedule import Schedule, make_schedule


def plan(
    name: str, role: Role, source: Literal["scratch", "pretrained"] = "scratch", *, quick: bool = False, **training: object
) -> Plan:
    stages = (TrainStage(training=training),)
    return Plan(name=name, title=name, role=role, modalities=("table",), source=source, stages=stages, quick=quick)


PLANS = [
    plan("separate", "reference"),
    plan("shared", "joint"),
    plan("moe", "joint"),
    plan("weights", "joint"),
    plan("trees", "independent", quick=True, max_steps=400),
    plan("frozen", "independent", "pretrained"),
    plan("full", "joint", "pretrained"),
]
SECONDS = {"separate": 0.04, "shared": 0.012, "moe": 0.02, "weights": 0.013, "trees": 0.005, "frozen": 0.003, "full": 0.8}
NEEDED = {"separate", "shared", "trees"}


def estimates(factor: float = 1.0, epoch: float = 30.0, **changes: float) -> dict[str, Estimate]:
    return {
        name: Estimate(plan=name, seconds_per_step=factor * seconds, setup_seconds=0.1, eval_seconds=0.05, steps_per_epoch=epoch)
        for name, seconds in {**SECONDS, **changes}.items()
    }


def budget(steps: int | None, seconds: float | None, *, workers: int = 2, control_tasks: int = 4, **more: object) -> RaceBudget:
    fields = {"seeds": (0, 1, 2), "steps": steps, "seconds": seconds, "workers": workers, "control_tasks": control_tasks, **more}
    return RaceBudget(**fields)  # type: ignore[arg-type]


def schedule(seconds: float | None, steps: int | None = None, **changes: float) -> Schedule:
    return make_schedule(PLANS, estimates(**changes), budget(steps, seconds))


def effort_of(found: Schedule) -> Effort:
    return Effort(
        seeds=len(found.seeds),
        control_seeds=found.control_seeds,
        control_tasks=found.control_tasks,
        refits=found.refits or 0,
        finalists=found.finalists,
    )


def test_given_steps_are_taken_as_they_are_and_nothing_measured_counts() -> None:
    first, second = schedule(None, 100), schedule(None, 100, factor=50.0)
    assert first.horizons == second.horizons
    assert first.horizons["separate"] == first.horizons["full"] == 100
    assert first.horizons["trees"] == 400
    assert first.control_seeds == 3
    assert first.cuts == ()
    assert [first.rung_steps("separate", rung) for rung in (0, 1)] == [25, 50]


def test_the_schedule_fits_and_uses_the_time() -> None:
    found = schedule(600.0)
    assert found.seconds <= 600.0
    assert found.seconds > 500.0
    assert found.left_out == {}
    scratch = {found.horizons[name] for name in ("separate", "shared", "moe", "weights")}
    assert len(scratch) == 1
    assert 0 < found.horizons["full"] < found.horizons["separate"]
    assert found.horizons["frozen"] >= found.horizons["separate"]


def test_much_time_gives_long_horizons_and_controls_on_all_seeds() -> None:
    found = schedule(1e7)
    assert found.horizons["separate"] == MOST_EPOCHS * 30
    assert found.control_seeds == 3
    assert schedule(1e7, epoch=1.0).horizons["separate"] == 3000, "few rows: as many steps as others, not as many epochs"
    assert schedule(60.0).control_seeds < 3


def test_a_plan_that_answers_no_question_and_cannot_learn_is_left_out_with_the_reason() -> None:
    found = schedule(240.0, full=30.0)
    assert "full" not in found.horizons
    assert "too slow: 30 s per step" in found.left_out["full"]


@pytest.mark.parametrize("slow", sorted(NEEDED))
def test_reference_cheapest_sharing_and_quick_plans_are_never_left_out(slow: str) -> None:
    # However slow they are, and however little time there is.
    for seconds in (1.0, 20.0, 240.0):
        found = schedule(seconds, **{slow: 40.0})
        known = estimates(**{slow: 40.0})
        assert essential_plans(PLANS, known) <= set(found.horizons)
        assert not essential_plans(PLANS, known) & set(found.left_out)


def test_joint_trees_do_not_stand_in_for_a_network_that_shares() -> None:
    known = {**estimates(), "forest": Estimate(plan="forest", setup_seconds=0.1)}
    assert essential_plans([*PLANS, plan("forest", "joint", max_steps=1)], known) == NEEDED


def test_hundreds_of_small_tasks_leave_sharing_in_the_race_with_a_decent_number_of_steps() -> None:
    """Separate models at 0.9 s a step, sharing at 0.08 s: equal steps would leave both without any."""
    found = schedule(180.0, separate=0.9, shared=0.08, moe=0.1, weights=0.09, trees=0.3)
    assert set(found.horizons) >= NEEDED
    assert found.horizons["shared"] >= 400 > found.horizons["separate"]


def test_controls_and_averaged_models_give_way_before_seeds_and_seeds_before_steps_are_gone() -> None:
    wide = budget(None, None, refits=5)
    ladder = list(efforts(wide))
    assert ladder[0] == full_effort(wide)
    for larger, smaller in itertools.pairwise(ladder):
        pairs = zip(dataclasses.astuple(larger), dataclasses.astuple(smaller), strict=True)
        assert all(before >= after for before, after in pairs)
    assert ladder[-1] == Effort(seeds=3, control_seeds=0, control_tasks=1, refits=1, finalists=1)
    assert [(one.seeds, one.refits) for one in least_efforts(wide)] == [(2, 1), (1, 1), (1, 0)]
    given = [effort_of(make_schedule(PLANS, estimates(), budget(None, seconds, refits=5))) for seconds in (20, 60, 240, 1e6)]
    assert [one.seeds for one in given] == sorted(one.seeds for one in given)
    assert [one.refits for one in given] == sorted(one.refits for one in given)


def test_a_control_with_folds_has_all_of_them_or_none() -> None:
    for effort in efforts(budget(None, None, seeds=tuple(range(5)), whole_controls=True)):
        assert effort.control_seeds in (0, effort.seeds)


def test_what_was_given_up_is_said() -> None:
    found = make_schedule(PLANS, estimates(), budget(None, 60.0, refits=5))
    assert {item["what"] for item in found.cuts} >= {"control_seeds", "refits"}
    assert all(item["given"] < item["planned"] and "time limit" in item["reason"] for item in found.cuts)


def test_a_seed_that_is_made_up_for_is_no_longer_missed() -> None:
    found = make_schedule(PLANS, estimates(), budget(None, 5.0, seeds=(0, 1, 2, 3)))
    assert len(found.seeds) == 1
    more = found.with_seed(1)
    cut = next(item for item in more.cuts if item["what"] == "seeds")
    assert (more.seeds, cut["given"], cut["reason"].split(" tr")[0]) == ((0, 1), 2, "the time limit allows 2 of 4")
    whole = more.with_seed(2).with_seed(3)
    assert "seeds" not in {item["what"] for item in whole.cuts}
    assert whole.control_seeds == found.control_seeds, "a control of fewer seeds can be compared"
    folded = dataclasses.replace(found, seeds=(0, 1, 2), control_seeds=3)
    assert folded.with_seed(3, whole_controls=True).control_seeds == 4
    assert dataclasses.replace(folded, control_seeds=0).with_seed(3, whole_controls=True).control_seeds == 0


def test_controls_that_were_never_planned_are_not_missed() -> None:
    found = make_schedule(PLANS, estimates(), budget(None, 20.0, control_tasks=0))
    assert not {item["what"] for item in found.cuts} & {"control_seeds", "control_tasks"}
    without = make_schedule(PLANS, estimates(), budget(None, 20.0))
    assert "control_seeds" in {item["what"] for item in without.cuts}


def test_too_little_time_keeps_the_reference_and_says_so() -> None:
    found = schedule(1.0)
    assert "separate" in found.horizons
    assert len(found.horizons) >= 2
    assert any("--time-limit" in note for note in found.notes)


def test_one_noisy_estimate_does_not_starve_a_race() -> None:
    """The reference seemed to take 264 ms a step; its first rung shows 14 ms."""
    noisy = estimates(separate=0.264)
    before = make_schedule(PLANS, noisy, budget(None, 180.0))
    measured = {**noisy, "separate": measured_cost(noisy["separate"], 14e-3 * 100 + 0.2, 100)}
    assert measured["separate"].seconds_per_step < 0.02
    after = make_schedule(PLANS, measured, budget(None, 150.0, rungs_done=1), before)
    assert after.horizons["shared"] > 2 * before.horizons["shared"]


def test_horizons_that_would_change_little_stay() -> None:
    before = schedule(600.0)
    after = make_schedule(PLANS, estimates(factor=1.1), budget(None, 560.0, rungs_done=1), before)
    assert after.horizons == before.horizons
    shrunk = make_schedule(PLANS, estimates(factor=4.0), budget(None, 560.0, rungs_done=1), before)
    assert shrunk.horizons["separate"] < before.horizons["separate"]
    assert set(shrunk.horizons) == set(before.horizons), "who has begun goes on"


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.floats(1e-6, 10.0), st.floats(0.01, 1e4), st.integers(0, 5000))
def test_measured_costs_explain_what_was_measured(setup: float, evaluate: float, step: float, seconds: float, steps: int) -> None:
    known = Estimate(plan="a", setup_seconds=setup, eval_seconds=evaluate, seconds_per_step=step)
    found = measured_cost(known, seconds, steps)
    assert min(found.setup_seconds, found.eval_seconds, found.seconds_per_step) >= 0
    if steps:
        assert steps * found.seconds_per_step <= seconds * 1.001 + 1e-5
        assert steps * found.seconds_per_step >= 0.49 * seconds


def test_what_is_fitted_in_one_go_costs_its_fit() -> None:
    known = Estimate(plan="ridge", setup_seconds=0.2, seconds_per_step=0.0)
    assert measured_cost(known, 3.0, 1).setup_seconds == pytest.approx(3.0)


def test_json_round_trip() -> None:
    found = schedule(100.0, full=30.0)
    assert Schedule.from_json(json.loads(json.dumps(found.to_json()))) == found
    estimate = estimates()["full"]
    assert Estimate.from_json(estimate.to_json()) == estimate


@settings(max_examples=60, deadline=None)
@given(
    st.floats(20, 5000),
    st.lists(st.floats(1e-4, 1.0), min_size=7, max_size=7),
    st.floats(1, 500),
    st.integers(1, 8),
)
def test_it_never_plans_more_than_the_time_unless_nothing_can_be_dropped(
    seconds: float, costs: list[float], epoch: float, workers: int
) -> None:
    known = estimates(epoch=epoch, **dict(zip(SECONDS, costs, strict=True)))
    given = budget(None, seconds, workers=workers, control_tasks=3)
    found = make_schedule(PLANS, known, given)
    racing = [item for item in PLANS if item.name in found.horizons]
    assert racing[0].name == "separate"
    assert essential_plans(PLANS, known) <= set(found.horizons)
    assert set(found.horizons) | set(found.left_out) == set(SECONDS)
    assert all(steps >= 1 for steps in found.horizons.values())
    expected = race_seconds(racing, known, found.horizons, given, effort_of(found))
    assert expected == pytest.approx(found.seconds)
    assert found.seconds <= seconds * 1.001 or found.notes or set(found.horizons) == essential_plans(racing, known)


def test_what_is_fitted_in_one_go_and_small_stays_however_slow_networks_are() -> None:
    closed = plan("closed", "independent", max_steps=1)
    known = estimates(separate=2.0, shared=1.0, moe=1.5, weights=1.1)
    for setup, once, stays in ((0.5, 0.0, True), (0.1, 3.0, True), (0.1, 40.0, False), (8.0, 0.0, False)):
        known["closed"] = Estimate(
            plan="closed", seconds_per_step=0.0, setup_seconds=setup, eval_seconds=0.01, steps_per_epoch=1.0, once_seconds=once
        )
        found = make_schedule([*PLANS, closed], known, budget(None, 40.0))
        assert ("closed" in found.horizons) is stays, (setup, once)
        assert "separate" in found.horizons


def large(seconds: float, *, scale: float = 20.0, **changes: float) -> Schedule:
    costs = estimates(**changes)
    costs["trees"] = dataclasses.replace(costs["trees"], sees_all_rows=True)
    return make_schedule(PLANS, costs, budget(None, seconds, scale=scale, race_rows=30_000, refits=1))


def test_finals_see_as_many_rows_as_a_decent_training_allows() -> None:
    rows = [large(seconds, trees=0.05).final_rows for seconds in (60.0, 240.0, 480.0, 36_000.0)]
    assert rows[-1] == 0, "all of them"
    assert 30_000 == rows[0] < rows[1] <= (rows[2] or 600_000)


def test_plans_that_see_all_rows_do_not_shorten_the_trainings_of_others() -> None:
    found = large(240.0, trees=0.05)
    assert found.final_rows
    assert found.horizons["separate"] >= 300, "with all rows for the trees nothing would be left for networks"
    assert found.horizons["trees"] >= 200


@given(seconds=st.floats(20.0, 5000.0), trees=st.floats(0.001, 0.3), scale=st.floats(1.0, 100.0))
@settings(max_examples=40, deadline=None)
def test_rows_of_finals_lie_between_those_of_the_rungs_and_all(seconds: float, trees: float, scale: float) -> None:
    rows = large(seconds, scale=scale, trees=trees).final_rows
    assert rows == 0 or 30_000 <= rows <= 30_000 * scale + 1


def test_a_training_is_never_planned_shorter_than_what_the_rungs_have_made() -> None:
    first = large(240.0, trees=0.05)
    # The first rung took far longer than estimated: next to nothing is left.
    costs = estimates(factor=20.0, trees=1.0)
    left = budget(None, 20.0, scale=20.0, race_rows=30_000, refits=1, rungs_done=1)
    again = make_schedule([plan for plan in PLANS if plan.name in first.horizons], costs, left, first)
    assert again.final_rows == 30_000
    for name, steps in again.horizons.items():
        assert steps == first.horizons[name] or steps > first.rung_steps(name, 0)
    assert again.horizons["trees"] == first.horizons["trees"], "it goes on from the rung, and is judged as far as it comes"


def test_a_plan_that_was_not_measured_is_not_called_too_slow() -> None:
    costs = {name: dataclasses.replace(cost, measured=name != "moe") for name, cost in estimates(moe=2.0).items()}
    found = make_schedule(PLANS, costs, budget(None, 30.0))
    assert "no time to measure" in found.left_out["moe"]


def test_a_plan_that_is_not_quick_on_this_suite_does_not_starve_the_others() -> None:
    linear = plan("linear", "independent", quick=True, max_steps=1)
    cost = Estimate(plan="linear", setup_seconds=65.0, eval_seconds=0.05, steps_per_epoch=30.0)
    found = make_schedule([*PLANS, linear], {**estimates(), "linear": cost}, budget(None, 45.0))
    assert "too slow: 65 s to fit it" in found.left_out["linear"]
    assert found.horizons["trees"] > 50
    small = make_schedule(
        [*PLANS, linear], {**estimates(), "linear": dataclasses.replace(cost, setup_seconds=1.0)}, budget(None, 45.0)
    )
    assert "linear" in small.horizons


def rest(before: Schedule, seconds: float, costs: Mapping[str, Estimate], **more: object) -> Schedule:
    """Return the schedule of the finals after both rungs."""
    racing = [item for item in PLANS if item.name in before.horizons]
    return make_schedule(racing, costs, budget(None, seconds, rungs_done=2, refits=1, **more), before)


def test_a_longer_training_begins_anew_and_leaves_time_for_models_on_all_rows() -> None:
    """Finals with stretched horizons cannot go on from the rungs: counted as half done, they took the time of the models on all
    rows, and the model that was handed over had learned from the training rows only."""
    costs = estimates()
    before = make_schedule(PLANS, costs, budget(None, 60.0, refits=1))
    found = rest(before, 100.0, costs)
    racing = [item for item in PLANS if item.name in found.horizons]
    anew = [item for item in racing if found.horizons[item.name] != before.horizons[item.name] and item.name != "trees"]
    assert anew, "with so much time the horizons grow"
    assert found.refits == 1
    work = sum(costs[item.name].seconds(found.horizons[item.name]) * (len(found.seeds) + 1) for item in anew)
    assert work / 2 <= 100.0


def test_models_on_all_rows_follow_the_finals() -> None:
    """Two workers do not help where one long training must end before the next begins."""
    costs = estimates()
    names = {"separate": 100, "trees": 400}
    racing = [item for item in PLANS if item.name in names]
    given = budget(None, 60.0, rungs_done=2, refits=1, control_tasks=0, workers=8)
    effort = Effort(seeds=1, control_seeds=0, control_tasks=0, refits=1, finalists=1)
    longest = costs["separate"].seconds(100)
    assert race_seconds(racing, costs, names, given, effort) >= 1.5 * longest
    costs["trees"] = dataclasses.replace(costs["trees"], sees_all_rows=True, seconds_per_step=0.1)
    few, many = (
        race_seconds(racing, costs, names, dataclasses.replace(given, refit_scale=scale), effort) for scale in (1.0, 5 / 3)
    )
    assert many > few + 0.5 * 400 * 0.1, "rounds on more rows take longer"


def test_models_on_all_rows_are_counted_for_those_that_may_be_handed_over() -> None:
    costs = estimates()
    names = {"separate": 100, "shared": 100, "trees": 400}
    racing = [item for item in PLANS if item.name in names]
    one_seed = Effort(seeds=1, control_seeds=0, control_tasks=0, refits=0, finalists=3)

    def models(effort: Effort, *, one_plan: bool) -> float:
        given = budget(None, 60.0, rungs_done=2, refits=1, control_tasks=0, workers=1, one_plan=one_plan)
        return race_seconds(racing, costs, names, given, effort) - race_seconds(racing, costs, names, given, one_seed)

    refits = dataclasses.replace(one_seed, refits=1)
    each = [costs[item.name].seconds(names[item.name]) for item in racing]
    longest, together = max(each), sum(each)
    assert models(refits, one_plan=True) == pytest.approx(longest, rel=0.05)
    assert models(refits, one_plan=False) == pytest.approx(0.75 * together, rel=0.05)
    assert models(dataclasses.replace(refits, refits=5), one_plan=True) == pytest.approx(5 * longest, rel=0.05)


@pytest.mark.parametrize(("limit", "epoch", "left"), [(40.0, 5.0, 9.4), (90.0, 30.0, 18.0), (90.0, 100.0, 19.8)])
def test_going_on_is_preferred_to_shorter_trainings_from_the_start(limit: float, epoch: float, left: float) -> None:
    """Shorter trainings begin anew and cost more than longer ones that go on: a search by halves may end below that gap."""
    costs = estimates(epoch=epoch)
    before = make_schedule(PLANS, costs, budget(None, limit, refits=1))
    found = rest(before, left, costs)
    kept = {name: before.horizons[name] for name in found.horizons}
    racing = [item for item in PLANS if item.name in kept]
    assert race_seconds(racing, costs, kept, budget(None, left, rungs_done=2, refits=1), effort_of(found)) <= left
    assert dict(found.horizons) == kept


def test_time_is_kept_for_models_of_all_rows_where_finals_see_a_part() -> None:
    """A table of 250,000 rows was answered by trees of 30,000 although a minute more would have made them of all."""
    costs = estimates(trees=0.015)
    costs["trees"] = dataclasses.replace(costs["trees"], sees_all_rows=True)
    free, kept = (
        make_schedule(PLANS, costs, budget(None, 120.0, scale=20.0, race_rows=30_000, refits=1, whole_seconds=seconds))
        for seconds in (0.0, 40.0)
    )
    assert free.final_rows
    assert kept.final_rows
    assert kept.seconds <= 80.0 * 1.001 < free.seconds
    # Nothing is kept for trainings that could not become better than those of the race in that time.
    endless = make_schedule(PLANS, costs, budget(None, 120.0, scale=200.0, race_rows=30_000, refits=1, whole_seconds=40.0))
    assert endless.seconds > 80.0
    # No more than they need: without plans that see all rows in every step they cost no more than finals.
    nets = [item for item in PLANS if item.name != "trees"]
    found = make_schedule(nets, costs, budget(None, 120.0, scale=20.0, race_rows=30_000, refits=1, whole_seconds=40.0))
    assert found.seconds > 80.0 or not found.final_rows
