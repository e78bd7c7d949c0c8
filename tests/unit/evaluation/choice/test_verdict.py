"""The verdict on simulated predictions whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from verdict_suites import make_suite

from graftwork.core.errors import DataError
from graftwork.core.records import Ledger, Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.selection import limit_problems
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.choice.verdict import FinalRun, build_verdict

SEPARATE = Plan(name="separate", title="Separate models", role="reference", modalities=("image",))
SHARED = Plan(name="shared", title="Shared trunk", role="joint", modalities=("image",))
EXPERTS = Plan(name="experts", title="Experts", role="joint", modalities=("image",))
FROZEN = Plan(name="frozen", title="Frozen features", role="independent", modalities=("image",), source="pretrained")
PLANS = {plan.name: plan for plan in (SEPARATE, SHARED, EXPERTS, FROZEN)}
COSTS = {"separate": 3_000_000, "shared": 1_000_000, "experts": 2_000_000, "frozen": 5_000_000}
LEDGERS = {name: Ledger(parameters_stored=cost, latency_ms_batch1=cost / 1e6) for name, cost in COSTS.items()}

Qualities = Mapping[str, Mapping[str, float]]
"""``{plan: {task: quality}}``: accuracy for a class task, RMSE for a value task."""


def predict(suite: Suite, task: TaskSpec, quality: float, rng: np.random.Generator, split: str = "test") -> np.ndarray:
    """Predictions of a known quality; what is hard for one plan is hard for all (the same rows, drawn from a fixed stream)."""
    target = suite.targets[task.name][suite.splits[split]]
    hardness = np.random.default_rng(9).random(len(target))
    if task.kind == "multiclass":
        right = 0.85 * hardness + 0.15 * rng.random(len(target)) < quality
        return np.eye(4)[np.where(right, target, (target + 1) % 4)] * 0.7 + 0.075
    common = np.random.default_rng(8).normal(size=target.shape)
    return target + quality * (0.9 * common + np.sqrt(1 - 0.81) * rng.normal(size=target.shape))


def finals_of(
    suite: Suite, qualities: Qualities, *, seeds: int = 3, spread: float = 0.01, noise: float = 0.01, stream: int = 3
) -> dict[str, list[FinalRun]]:
    """Runs whose quality varies by ``spread`` (relative) over seeds; validation scores have ``noise`` (relative) on top."""
    rng = np.random.default_rng(stream)
    finals: dict[str, list[FinalRun]] = {}
    split_luck = 1 + noise * rng.normal(size=(seeds, len(suite.tasks)))  # hard validation rows are hard for every plan
    for plan, by_task in qualities.items():
        for seed in range(seeds):
            predictions, validation = {}, {}
            for index, task in enumerate(suite.tasks):
                if task.name not in by_task:
                    continue
                quality = by_task[task.name] * (1 + spread * rng.normal())
                predictions[task.name] = predict(suite, task, quality, rng)
                metric = "accuracy" if task.kind == "multiclass" else "rmse"
                validation[task.name] = {metric: quality * split_luck[seed, index]}
            run = FinalRun(plan_name=plan, seed=seed, predictions=predictions, validation=validation)
            finals.setdefault(plan, []).append(run)
    return finals


def judge(suite: Suite, qualities: Qualities, *, options: Mapping[str, Any] | None = None, **simulation: Any) -> dict[str, Any]:
    settings = {"controls": {}, "affinity": None, "ledgers": LEDGERS, "plans": PLANS, "limits": {}, "num_resamples": 400}
    result = build_verdict(suite, finals_of(suite, qualities, **simulation), **{**settings, **(options or {})})
    json.dumps(result, allow_nan=False)
    return result


TWO = {"topic": "multiclass", "price": "regression"}


def labels(result: Mapping[str, Any], plan: str) -> dict[str, str]:
    return {row["task"]: row["label"] for row in result["comparisons"] if row["plan"] == plan}


def test_separate_wins() -> None:
    qualities = {"separate": {"topic": 0.8, "price": 0.5}, "shared": {"topic": 0.6, "price": 0.7}}
    result = judge(make_suite(TWO), qualities, spread=0.002)
    verdict = result["verdict"]
    assert (verdict["choice"], verdict["reference"], verdict["strength"]) == ("separate", "separate", "asserts")
    assert verdict["sentences"][0].startswith(
        "Train the tasks separately, with `separate`: the best other plan on validation, `shared`, is worse, -3"
    )
    assert labels(result, "shared") == {"topic": "worse", "price": "worse"}
    together = verdict["sentences"][1]
    assert together.startswith("Learning together (`shared`) is worse than separately (`separate`), -3")
    assert "was not tested, for lack of a control with shuffled companions; `topic` (-" in together
    assert "hurt" not in together  # nobody knows whether the companions' labels did it
    assert verdict["per_task_best"] == {"topic": "separate", "price": "separate"}
    assert verdict["warnings"] == []


def test_sharing_wins() -> None:
    qualities = {"separate": {"topic": 0.6, "price": 0.7}, "shared": {"topic": 0.8, "price": 0.5}}
    result = judge(make_suite(TWO), qualities, spread=0.002)
    verdict, delta = result["verdict"], result["plans"]["shared"]["delta_m"]
    assert (verdict["choice"], verdict["strength"]) == ("shared", "asserts")
    expected = (0.2 / 0.6 + 0.2 / 0.7) / 2 * 100
    assert delta["low"] < expected < delta["high"]
    assert verdict["sentences"][0].startswith("Use `shared`: it is better than separate models (`separate`), +3")
    assert verdict["sentences"][0].endswith("on average over the tasks, at a third of the parameters.")
    assert labels(result, "shared") == {"topic": "better", "price": "better"}
    assert result["plans"]["separate"]["delta_m"]["value"] == 0.0
    assert set(result["plans"]["shared"]["test"]["topic"]) == {"accuracy", "balanced_accuracy", "f1_macro", "log_loss"}
    assert [entry["seed"] for entry in result["plans"]["shared"]["per_seed"]] == [0, 1, 2]


def test_the_best_on_validation_is_chosen_and_a_cheaper_one_only_if_cost_is_preferred_and_it_is_not_worse() -> None:
    qualities = {
        "separate": {"topic": 0.5, "price": 0.7},
        "shared": {"topic": 0.7, "price": 0.5},
        "experts": {"topic": 0.702, "price": 0.4985},
    }

    def decide(**options: Any) -> dict[str, Any]:
        return dict(judge(make_suite(TWO), qualities, spread=0.0, noise=0.001, options=options)["verdict"])

    verdict = decide()
    assert (verdict["choice"], verdict["best_on_validation"], verdict["strength"]) == ("experts", "experts", "asserts")
    assert verdict["cheaper"]["plan"] == "shared"
    assert not verdict["cheaper"]["taken"]
    offer = next(sentence for sentence in verdict["sentences"] if "--prefer cost" in sentence)
    assert offer.startswith(
        "`shared` costs half the parameters of `experts` and is not worse: -0.3 % on validation, at least -0."
    )
    taken = decide(prefer="cost")
    assert (taken["choice"], taken["best_on_validation"], taken["cheaper"]["taken"]) == ("shared", "experts", True)
    assert any("the best on validation, and is not worse: -0.3 %" in sentence for sentence in taken["sentences"])
    strict = decide(prefer="cost", tolerance=0.1)
    assert (strict["choice"], strict["cheaper"]) == ("experts", None)


def test_that_plans_cannot_be_told_apart_is_no_reason_to_take_the_cheaper_one() -> None:
    quality = {"topic": 0.7, "price": 0.6}
    qualities = {"separate": quality, "experts": {"topic": 0.72, "price": 0.58}, "shared": {"topic": 0.7, "price": 0.62}}
    verdict = judge(make_suite(TWO), qualities, spread=0.05, options={"prefer": "cost"})["verdict"]
    assert verdict["choice"] == verdict["best_on_validation"]
    assert verdict["cheaper"] is None


def test_one_task_that_may_lose_more_than_the_tolerance_keeps_the_cheaper_plan_out() -> None:
    qualities = {
        "separate": {"topic": 0.5, "price": 0.7},
        "shared": {"topic": 0.72, "price": 0.52},  # better on average, far worse on one task
        "experts": {"topic": 0.7, "price": 0.5},
    }
    verdict = judge(make_suite(TWO), qualities, spread=0.0, noise=0.001, options={"prefer": "cost"})["verdict"]
    assert (verdict["choice"], verdict["cheaper"]) == ("experts", None)


def test_exact_equals_are_decided_by_cost() -> None:
    quality = {"topic": 0.7, "price": 0.6}
    suite = make_suite(TWO)
    one = finals_of(suite, {"shared": quality})["shared"]
    finals = {name: [replace(run, plan_name=name) for run in one] for name in ("separate", "experts", "shared")}
    verdict = build_verdict(suite, finals, controls={}, affinity=None, ledgers=LEDGERS, plans=PLANS, num_resamples=100)["verdict"]
    assert (verdict["choice"], verdict["strength"]) == ("shared", "no difference")
    assert "no difference to separate models (`separate`) was found on the test rows, 0.0 %" in verdict["sentences"][0]
    assert verdict["sentences"][0].endswith(", at a third of the parameters.")


def test_when_nothing_differs_false_alarms_are_rare() -> None:
    suite, trials = make_suite(TWO, rows=200), 20
    alarms, words, strengths = 0, [], []
    for trial in range(trials):
        rng = np.random.default_rng(100 + trial)
        finals = {
            name: [
                FinalRun(
                    plan_name=name,
                    seed=seed,
                    predictions={task.name: predict(suite, task, 0.6 * (1 + 0.03 * rng.normal()), rng) for task in suite.tasks},
                    validation={"topic": {"accuracy": 0.6 + 0.02 * rng.normal()}, "price": {"rmse": 0.6 + 0.02 * rng.normal()}},
                )
                for seed in range(3)
            ]
            for name in ("separate", "shared")
        }
        result = build_verdict(
            suite, finals, controls={}, affinity=None, ledgers=LEDGERS, plans=PLANS, num_resamples=100, seed=trial
        )
        alarms += any(row["label"] in ("better", "worse") for row in result["comparisons"])
        words += [row["label"] for row in result["comparisons"]]
        strengths.append(result["verdict"]["strength"])
    assert alarms <= 1
    assert len(words) - words.count("unclear") - words.count("no difference") <= 0.05 * len(words)
    assert strengths.count("asserts") <= 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"rows": 60}, "Only 60 labelled test rows for `topic` and `price`: these comparisons are tentative."),
        ({"groups": 7}, "Only 7 groups among the test rows for `topic` and `price`: these comparisons are tentative."),
        ({"seeds": 2}, "Only 2 seeds in common for `topic` and `price`: these comparisons are tentative."),
    ],
)
def test_few_rows_groups_or_seeds_make_probable_and_never_assert(options: dict[str, int], reason: str) -> None:
    seeds = options.pop("seeds", 3)
    qualities = {"separate": {"topic": 0.3, "price": 0.9}, "shared": {"topic": 0.9, "price": 0.2}}
    result = judge(make_suite(TWO, **options), qualities, seeds=seeds, spread=0.003)
    assert result["verdict"]["choice"] == "shared"
    assert result["verdict"]["strength"] == "tentative"
    assert result["verdict"]["sentences"][0].startswith(
        "Use `shared`: it is probably better than separate models (`separate`), +"
    )
    assert set(labels(result, "shared").values()) == {"probably better"}
    assert reason in result["verdict"]["warnings"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"rows": 20},
            "Only 20 labelled test rows (30 are needed) for `topic` and `price`: nothing is said of these comparisons.",
        ),
        ({"groups": 3}, "Only 3 groups among the test rows for `topic` and `price`: nothing is said of these comparisons."),
        ({"seeds": 1}, "Only 1 seed in common for `topic` and `price`: nothing is said of these comparisons."),
    ],
)
def test_one_seed_or_hardly_any_rows_say_nothing(options: dict[str, int], reason: str) -> None:
    seeds = options.pop("seeds", 3)
    qualities = {"separate": {"topic": 0.3, "price": 0.9}, "shared": {"topic": 0.9, "price": 0.2}}
    result = judge(make_suite(TWO, **options), qualities, seeds=seeds)
    assert (result["verdict"]["choice"], result["verdict"]["strength"]) == ("shared", "open")
    assert set(labels(result, "shared").values()) == {"unclear"}
    assert "the best on validation; whether it is better than separate models" in result["verdict"]["sentences"][0]
    assert reason in result["verdict"]["warnings"]


FOUR = {"category": "multiclass", "subcategory": "multiclass", "mean_colour": "regression", "ink": "regression"}


def test_pretrained_helps_two_tasks_and_hurts_two() -> None:
    scratch = {"category": 0.5, "subcategory": 0.3, "mean_colour": 0.3, "ink": 0.4}
    frozen = {"category": 0.75, "subcategory": 0.55, "mean_colour": 0.5, "ink": 0.6}
    shared = {"category": 0.55, "subcategory": 0.35, "mean_colour": 0.4, "ink": 0.5}
    result = judge(make_suite(FOUR), {"separate": scratch, "shared": shared, "frozen": frozen})
    sentence = result["verdict"]["source_sentence"]
    helped, hurt = sentence.split(" and hurts ")
    assert helped.startswith("The pretrained backbone helps `category` (+")
    assert ") and `subcategory` (+" in helped
    assert "`mean_colour` (-" in hurt
    assert "`ink` (-" in hurt
    rows = {row["task"]: row for row in result["source_effect"]}
    assert rows["category"]["scratch_plan"] == "shared"  # the best from scratch on that task, by validation
    assert rows["ink"]["scratch_plan"] == "separate"
    assert {row["pretrained_plan"] for row in rows.values()} == {"frozen"}
    assert [rows[task]["label"] for task in FOUR] == ["better", "better", "worse", "worse"]


def test_a_plan_that_wins_and_loses_says_which_task_wants_which_plan() -> None:
    result = judge(
        make_suite(TWO, rows=4000), {"separate": {"topic": 0.5, "price": 0.5}, "shared": {"topic": 0.85, "price": 0.6}}
    )
    verdict = result["verdict"]
    assert verdict["choice"] == "shared"
    assert verdict["per_task_best"] == {"topic": "shared", "price": "separate"}
    assert verdict["sentences"][1].startswith("For `price` (+")
    assert verdict["sentences"][1].endswith(") use `separate` instead of `shared`.")
    assert "`price` (-" in verdict["sentences"][-1]


def test_test_rows_never_select() -> None:
    """Validation and test disagree on purpose: the choice follows validation, the words follow the test rows."""
    suite = make_suite(TWO)
    finals = finals_of(suite, {"separate": {"topic": 0.8, "price": 0.5}, "shared": {"topic": 0.6, "price": 0.7}})
    swapped = {
        name: [
            FinalRun(plan_name=run.plan_name, seed=run.seed, predictions=run.predictions, validation=other.validation)
            for run, other in zip(finals[name], finals[partner], strict=True)
        ]
        for name, partner in (("separate", "shared"), ("shared", "separate"))
    }
    result = build_verdict(suite, swapped, controls={}, affinity=None, ledgers=LEDGERS, plans=PLANS, limits={}, num_resamples=200)
    verdict = result["verdict"]
    assert verdict["choice"] == "shared"
    assert verdict["strength"] == "open"
    assert "with care: on the test rows it is worse than separate models (`separate`), -" in verdict["sentences"][0]
    assert "Validation and test rows disagree" in verdict["sentences"][0]


def test_limits_leave_plans_out() -> None:
    qualities = {name: {"topic": 0.6, "price": 0.6} for name in ("separate", "shared")} | {
        "experts": {"topic": 0.9, "price": 0.3}
    }
    suite = make_suite(TWO)
    assert judge(suite, qualities)["verdict"]["choice"] == "experts"
    assert judge(suite, qualities, options={"limits": {"max_params": 1_500_000}})["verdict"]["choice"] == "shared"
    none = judge(suite, qualities, options={"limits": {"max_latency": 0.5}})["verdict"]
    assert none["choice"] == "shared"
    assert none["cost_name"] == "latency_ms_batch1"
    assert any(
        "No finalist meets the limits" in warning and "2 ms latency (limit 0.5)" in warning for warning in none["warnings"]
    )
    assert limit_problems(None, {"max_params": 1}) == []


def test_controls_tell_transfer_from_regularisation() -> None:
    suite = make_suite(TWO)
    shared = {"topic": 0.8, "price": 0.5}
    controls = {
        "topic": finals_of(suite, {"shared": {"topic": 0.6, "price": 5.0}})["shared"],  # the control falls back to separate
        "price": finals_of(suite, {"shared": {"topic": 0.1, "price": 0.5}})["shared"],  # the control keeps the gain
    }
    result = judge(suite, {"separate": {"topic": 0.6, "price": 0.7}, "shared": shared}, options={"controls": controls})
    assert {row["task"]: row["label"] for row in result["controls"]} == {"topic": "transfer", "price": "regularisation"}
    together = result["verdict"]["sentences"][-1]
    assert together.startswith("The tasks help each other: learned together (`shared`) against separately (`separate`), +")
    assert "; it helps `topic` (+" in together
    assert "; `price` (+" in together
    assert together.endswith("is better with shuffled companions, too, which is regularisation.")


def test_affinity_enters_the_sentence_when_both_directions_are_sure_and_controls_agree() -> None:
    names = ["category", "subcategory", "ink"]
    value = [[1.0, 0.4, -0.5], [0.4, 1.0, -0.4], [-0.6, -0.5, 1.0]]
    low, high = ([[cell + shift for cell in row] for row in value] for shift in (-0.02, 0.02))
    affinity = {"tasks": names, "value": value, "low": low, "high": high, "measurements": 6, "method": "lookahead"}
    qualities = {
        "separate": {"category": 0.6, "subcategory": 0.5, "ink": 0.4},
        "shared": {"category": 0.8, "subcategory": 0.7, "ink": 0.5},
    }
    suite = make_suite({name: FOUR[name] for name in names})
    controls = {name: finals_of(suite, {"shared": {name: 0.4}})["shared"] for name in names}
    result = judge(suite, qualities, options={"affinity": affinity, "controls": controls})
    assert {row["task"]: row["label"] for row in result["controls"]} == {
        "category": "transfer",
        "subcategory": "transfer",
        "ink": "harm",
    }
    assert "`category` and `subcategory` help each other's loss during training" in result["verdict"]["sentences"][-1]
    assert result["pair_words"] == [["", "helps", "hurts"], ["helps", "", "hurts"], ["unclear", "unclear", ""]]
    alone = judge(suite, qualities, options={"affinity": affinity})
    assert "help each other's loss" not in " ".join(alone["verdict"]["sentences"])
    assert {word for row in alone["pair_words"] for word in row} == {"", "unclear"}


def test_no_separate_models_means_no_gain_is_claimed() -> None:
    result = judge(make_suite(TWO), {"shared": {"topic": 0.8, "price": 0.5}, "frozen": {"topic": 0.6, "price": 0.7}})
    verdict = result["verdict"]
    assert (verdict["choice"], verdict["reference"], verdict["strength"]) == ("shared", None, "asserts")
    assert verdict["sentences"][0].startswith("Use `shared`: it is better than the next best on validation, `frozen`, +")
    assert verdict["sentences"][-1].startswith("Whether the tasks help each other was not tested: `shared` learned them together")
    assert result["comparisons"] == []
    assert result["plans"]["shared"]["delta_m"] is None
    assert any("No plan of separate models finished" in warning for warning in verdict["warnings"])
    assert result["source_effect"][0]["label"] == "worse"


def test_a_plan_without_a_task_or_score_is_judged_on_the_rest() -> None:
    suite = make_suite(TWO)
    result = judge(suite, {"separate": {"topic": 0.6, "price": 0.7}, "shared": {"topic": 0.9}})
    assert result["verdict"]["choice"] == "separate"
    assert labels(result, "shared") == {"topic": "better"}
    assert any("`shared` has no complete validation scores" in warning for warning in result["verdict"]["warnings"])


def test_only_one_plan() -> None:
    verdict = judge(make_suite(TWO), {"separate": {"topic": 0.6, "price": 0.7}})["verdict"]
    assert verdict["sentences"] == [
        "Only `separate` finished, so there is nothing to compare it with.",
        "Whether the tasks help each other was not tested: no plan that learns them together finished.",
    ]
    assert verdict["source_sentence"] is None


def test_single_task_suite_has_no_words_on_training_together() -> None:
    result = judge(make_suite({"topic": "multiclass"}), {"separate": {"topic": 0.6}, "frozen": {"topic": 0.8}})
    assert result["verdict"]["sentences"][0].startswith("Use `frozen`: it is better than `separate`, +")
    assert result["verdict"]["sentences"][0].endswith(", at 1.67 times the parameters.")
    assert len(result["verdict"]["sentences"]) == 1


def test_transfer_rows_get_their_own_intervals() -> None:
    suite = make_suite(TWO)
    suite = suite.with_splits({**suite.splits, "transfer": np.arange(1000, 1150)})
    rng = np.random.default_rng(0)
    finals = {
        name: [
            FinalRun(
                plan_name=name,
                seed=run.seed,
                predictions=run.predictions,
                validation=run.validation,
                transfer_predictions={task.name: predict(suite, task, 0.4, rng, "transfer") for task in suite.tasks},
            )
            for run in runs
        ]
        for name, runs in finals_of(suite, {"separate": {"topic": 0.8, "price": 0.5}}).items()
    }
    result = build_verdict(suite, finals, controls={}, affinity=None, ledgers=LEDGERS, plans=PLANS, num_resamples=100)
    entry = result["plans"]["separate"]
    assert entry["transfer"]["topic"]["accuracy"]["value"] == pytest.approx(0.4, abs=0.1)
    assert entry["test"]["topic"]["accuracy"]["value"] == pytest.approx(0.8, abs=0.1)


def test_undefined_metrics_are_null_in_the_result() -> None:
    suite = make_suite({"topic": "multiclass"})
    suite = suite.with_targets({"topic": np.where(np.arange(1800) >= 1200, -1, suite.targets["topic"])})
    result = judge(suite, {"separate": {"topic": 0.6}, "shared": {"topic": 0.8}})
    assert result["plans"]["shared"]["test"]["topic"]["accuracy"]["value"] is None
    assert result["comparisons"][0]["label"] == "unclear"
    assert any("Only 0 labelled test rows" in warning for warning in result["verdict"]["warnings"])


def test_pareto_front_of_cost_and_test_score() -> None:
    qualities = {
        "separate": {"topic": 0.6, "price": 0.6},
        "shared": {"topic": 0.65, "price": 0.55},
        "experts": {"topic": 0.8, "price": 0.4},
        "frozen": {"topic": 0.6, "price": 0.7},
    }
    found = {row["plan"]: row for row in judge(make_suite(TWO), qualities)["pareto"]}
    assert {name for name, row in found.items() if row["on_front"]} == {"shared", "experts"}
    assert found["frozen"]["cost"] == 5_000_000
    assert found["frozen"]["cost_name"] == "parameters_stored"


def test_what_cannot_be_judged_is_named() -> None:
    suite = make_suite(TWO)
    settings: dict[str, Any] = {"controls": {}, "affinity": None, "ledgers": {}, "plans": PLANS}
    with pytest.raises(DataError, match="no finished run to judge"):
        build_verdict(suite, {"shared": []}, **settings)
    with pytest.raises(DataError, match="no plan record for other; the plans are separate, shared"):
        build_verdict(suite, {"other": finals_of(suite, {"shared": {"topic": 0.5}})["shared"]}, **settings)
    short = FinalRun(plan_name="shared", seed=4, predictions={"topic": np.zeros((3, 4))}, validation={})
    with pytest.raises(DataError, match=r"'shared', seed 4: 3 predictions of task 'topic' for 600 test rows"):
        build_verdict(suite, {"shared": [short]}, **settings)


def test_reference_is_the_best_of_several_separate_plans_on_validation() -> None:
    suite = make_suite(TWO)
    finals = finals_of(suite, {"separate": {"topic": 0.6, "price": 0.6}, "shared": {"topic": 0.7, "price": 0.5}})
    plans = {"separate": SEPARATE, "shared": Plan(name="shared", title="t", role="reference", modalities=("image",))}
    assert ValidationTable(suite, finals, plans).reference == "shared"
