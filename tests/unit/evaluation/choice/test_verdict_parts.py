"""The verdict's parts: what counts as a lead on validation, and numbers in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import Interval, Ledger, Plan, TaskSpec
from graftwork.data.suite import Suite
from graftwork.evaluation.choice import sentences as text
from graftwork.evaluation.choice.together import answers_of
from graftwork.evaluation.choice.together_sentences import together_sentence
from graftwork.evaluation.choice.validation_table import ValidationTable
from graftwork.evaluation.choice.verdict import FinalRun, build_verdict

PLANS = {
    name: Plan(name=name, title=name, role=role, modalities=("table",))
    for name, role in (("separate", "reference"), ("shared", "joint"))
}


def test_a_lead_on_validation_counts_if_it_is_large_or_steady() -> None:
    suite = Suite.of_arrays(
        name="labels",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="topic", kind="multiclass", size=4)],
        inputs={"numeric": np.zeros((900, 1), np.float32), "categorical": np.zeros((900, 0), np.int64)},
        targets={"topic": np.arange(900) % 4},
        splits={"train": np.arange(400), "val": np.arange(400, 600), "test": np.arange(600, 900)},
    )

    def leads(differences: list[float]) -> bool:
        finals = {
            name: [
                FinalRun(plan_name=name, seed=seed, predictions={}, validation={"topic": {"accuracy": 0.5 * (1 + shift / 100)}})
                for seed, shift in enumerate(shifts)
            ]
            for name, shifts in (("separate", [0.0] * len(differences)), ("shared", differences))
        }
        return ValidationTable(suite, finals, PLANS).is_beyond_noise("shared", "separate")

    assert leads([2.0, 3.0, 2.5])
    assert not leads([9.0, -6.0, 4.0])
    assert not leads([0.3, 0.4, 0.35])  # sure, but too small to matter
    assert not leads([3.0])  # one seed says nothing about noise
    assert not leads([-3.0, -3.0])


@pytest.mark.parametrize(
    ("cost", "reference", "phrase"),
    [
        (1.0, 3.0, "a third of the parameters"),
        (1.0, 2.1, "half the parameters"),
        (1.02, 1.0, "about the same parameters"),
        (0.7, 1.0, "70 % of the parameters"),
        (2.4, 1.0, "2.4 times the parameters"),
        (150.0, 1.0, "150 times the parameters"),
        (float("nan"), 1.0, ""),
    ],
)
def test_ratios_in_words(cost: float, reference: float, phrase: str) -> None:
    assert text.ratio_phrase(cost, reference, "parameters_stored") == phrase


def answer_of(word: str, controls: dict[str, str | None]) -> dict[str, Any]:
    sign = 1.0 if word == "better" else -1.0
    ends = {"low": sign * 5.0 - 2, "high": sign * 5.0 + 2, "level": 0.95}
    rows = [
        {
            "task": task,
            "difference": {"value": {"transfer": 6.0, "harm": -6.0}.get(str(label), 1.0), **ends},
            "label": {"transfer": "better", "harm": "worse"}.get(str(label), "unclear"),
            "control": label,
            "surely": label in ("transfer", "harm"),
        }
        for task, label in controls.items()
    ]
    difference = {"value": sign * 5.0, **ends}
    return {
        "plan": "shared",
        "reference": "separate",
        "difference": difference,
        "label": word,
        "tasks": rows,
        "control": None,
        "unlearned": None,
    }


@pytest.mark.parametrize(
    ("word", "controls", "begins", "says"),
    [
        ("better", {"a": "transfer", "b": "transfer"}, "The tasks help each other", "helps `a` (+6.0 %) and `b` (+6.0 %)"),
        ("worse", {"a": "harm", "b": "harm", "c": "unclear"}, "The tasks hurt each other", "hurts `a` (-6.0 %) and `b` (-6.0 %)"),
        ("better", {"a": "transfer", "b": "harm"}, "Learning together (`shared`) is better", "help some tasks and hurt others"),
        ("worse", {"a": "transfer", "b": "harm"}, "Learning together (`shared`) is worse", "help some tasks and hurt others"),
        (
            "better",
            {"a": "transfer", "b": "unclear", "c": "gain", "d": None},
            "Learning together (`shared`) is better",
            "was shown for some tasks only",
        ),
        ("better", {"a": "transfer", "b": None, "c": None}, "The tasks help each other", "helps `a` (+6.0 %)"),
    ],
)
def test_tasks_help_each_other_only_if_none_is_hurt_and_not_few_are_helped(
    word: str, controls: dict[str, str | None], begins: str, says: str
) -> None:
    sentence = together_sentence(answer_of(word, controls))
    assert sentence.startswith(begins)
    assert says in sentence


def test_the_mean_over_controls_shows_what_single_tasks_are_too_noisy_for() -> None:
    over = {"value": 4.0, "low": 1.0, "high": 7.0, "level": 0.95}
    pooled = {"tasks": ["a", "b"], "over_control": over, "over_control_word": "probably better", "label": "transfer"}
    answer = {**answer_of("better", {"a": "unclear", "b": "unclear", "c": None}), "control": pooled}
    sentence = together_sentence(answer)
    assert sentence.startswith(
        "The tasks probably help each other: learned together (`shared`) against separately (`separate`), +5.0 %"
    )
    assert "; against shuffled companions, +4.0 % (95 % interval 1.0 to 7.0) on average over 2 of 3 tasks." in sentence
    sure = together_sentence({**answer, "control": {**pooled, "over_control_word": "better"}})
    assert sure.startswith("The tasks help each other: ")
    open_still = together_sentence({**answer, "control": {**pooled, "label": "gain"}})
    assert open_still.endswith("that the other tasks' labels are the reason was not shown.")
    hurt = together_sentence({**answer_of("better", {"a": "harm", "b": "unclear"}), "control": pooled})
    assert "the other tasks' labels help some tasks and hurt others; it hurts `a` (-6.0 %)" in hurt


@pytest.mark.parametrize(
    ("mean", "gained", "over", "label"),
    [
        ("better", 4.0, "better", "transfer"),
        ("better", -1.0, "better", "gain"),  # the tasks that gain had no control
        ("better", 4.0, "unclear", "gain"),
        ("worse", -4.0, "worse", "loss"),  # unrelated tasks that can be learned compete for a trunk as well
        ("unclear", 4.0, "better", "unclear"),
    ],
)
def test_the_mean_over_controls_shows_help_and_never_harm(mean: str, gained: float, over: str, label: str) -> None:
    sign = -1.0 if mean == "worse" else 1.0
    whole = {key: value for key, value in answer_of("better", {}).items() if key not in ("tasks", "control", "unlearned")}
    whole |= {"label": mean, "difference": {"value": 5.0 * sign, "low": 1.0, "high": 9.0}}
    control = {
        "tasks": ["a"],
        "gain": {"value": gained},
        "over_control": {"value": 3.0 * sign, "high": 9.0},
        "over_control_word": over,
    }
    found = answers_of([("shared", "separate")], lambda *_: whole, lambda *_: [], [], {"shared": control})
    assert found[0]["control"]["label"] == label


def test_numbers_in_words() -> None:
    assert text.format_interval(Interval(12.34, 8.06, 16.0)) == "+12.3 % (95 % interval 8.1 to 16.0)"
    assert text.format_interval(Interval(-120.4, -150.2, -90.0)) == "-120 % (95 % interval -150 to -90)"
    assert text.format_interval(Interval(2.0, float("nan"), float("nan"))) == "+2.0 %"
    assert text.join_words(["a"]) == "a"


def test_nothing_is_asserted_on_splits_that_give_targets_away() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(900, 1)).astype(np.float32)
    plain = Suite.of_arrays(
        name="houses",
        input_specs={"table": InputSpec(kind="table")},
        tasks=[TaskSpec(name="price", kind="regression", size=1, scale=(1.0,), center=(0.0,))],
        inputs={"numeric": np.zeros((900, 1), np.float32), "categorical": np.zeros((900, 0), np.int64)},
        targets={"price": values},
        splits={"train": np.arange(400), "val": np.arange(400, 600), "test": np.arange(600, 900)},
    )
    finals = {
        plan: [
            FinalRun(
                plan_name=plan,
                seed=seed,
                predictions={"price": values[600:] + error * rng.normal(size=(300, 1))},
                validation={"price": {"rmse": error, "r2": 1.0 - error**2}},
            )
            for seed in range(3)
        ]
        for plan, error in (("separate", 1.0), ("shared", 0.4))
    }

    def verdict(raw: dict[str, str]) -> dict[str, Any]:
        suite = replace(plain, raw=raw)
        ledgers = dict.fromkeys(PLANS, Ledger(parameters_stored=10))
        found = build_verdict(suite, finals, controls={}, affinity=None, ledgers=ledgers, plans=PLANS, num_resamples=200)
        result: dict[str, Any] = found["verdict"]
        return result

    crossing = "rows of one house are on both sides of the splits"
    assert verdict({"crossing": ""})["strength"] == "asserts"
    assert verdict({"crossing": crossing})["strength"] == "tentative"
    assert f"{crossing.capitalize()}: these comparisons are tentative." in verdict({"crossing": crossing})["warnings"]


def test_very_many_names_are_counted() -> None:
    from graftwork.evaluation.choice.evidence_sentences import _listed

    assert _listed(["a", "b"]) == "`a` and `b`"
    assert _listed([f"t{number}" for number in range(200)]) == "`t0`, `t1`, `t2` and 197 more"
