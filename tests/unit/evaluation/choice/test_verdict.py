"""The verdict on simulated predictions whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from verdict_suites import LEDGERS, PLANS, TWO, finals_of, judge, labels, make_suite, predict

from graftwork.core.errors import DataError
from graftwork.evaluation.choice.verdict import FinalRun, build_verdict
from graftwork.workflows.fit.combined import blend_plan


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
    lacking = [
        sentence for sentence in result["verdict"]["sentences"] if "is open for lack of trainings or test rows" in sentence
    ]
    assert len(lacking) == 2, "which model to ship, and whether the tasks help each other"


def test_a_plan_with_fewer_seeds_than_others_is_named() -> None:
    suite = make_suite(TWO)
    finals = finals_of(suite, {name: {"topic": 0.5, "price": 0.5} for name in ("separate", "shared", "experts")})
    finals["experts"] = finals["experts"][:1]
    result = build_verdict(suite, finals, controls={}, affinity=None, ledgers={}, plans=PLANS, num_resamples=50)
    assert result["verdict"]["warnings"] == [
        "Only 1 seed in common of `experts` with `separate` for `topic` and `price`: nothing is said of these comparisons."
    ]
    assert {row["plan"] for row in result["comparisons"] if row["evidence"] == "none"} == {"experts"}


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


def test_an_average_that_holds_pretrained_features_is_no_plan_from_scratch() -> None:
    qualities = {
        "separate": {"topic": 0.5, "price": 0.5},
        "frozen": {"topic": 0.7, "price": 0.3},
        "ensemble": {"topic": 0.8, "price": 0.2},
    }
    plans = {**PLANS, "ensemble": blend_plan("ensemble", "An average", [], ["image"])}
    ledgers = {**LEDGERS, "ensemble": LEDGERS["frozen"]}
    result = judge(make_suite(TWO), qualities, options={"plans": plans, "ledgers": ledgers})
    assert result["verdict"]["choice"] == "ensemble"
    assert {row["scratch_plan"] for row in result["source_effect"]} == {"separate"}
    assert result["verdict"]["source_sentence"].startswith("The pretrained backbone helps `topic` (+")


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
        "Only `separate` was judged on test rows, so there is nothing to compare it with.",
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
