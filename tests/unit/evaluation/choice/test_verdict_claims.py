"""No sentence of a verdict contradicts the result or another sentence, on hundreds of generated results of all kinds."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from verdict_checker import ContradictionError, check_verdict
from verdict_suites import make_suite

from graftwork.core.components import Component
from graftwork.core.records import Ledger, Plan, TaskSpec
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite
from graftwork.evaluation.choice.verdict import FinalRun, build_verdict
from graftwork.evaluation.choice.word import word_of_row


def trees(name: str) -> tuple[TrainStage, ...]:
    return (TrainStage(learner=Component(f"graftwork.domains.tabular.forests:{name}")),)


BLEND = (TrainStage(learner=Component("graftwork.training.blend:BlendLearner")),)
PLANS = {
    plan.name: plan
    for plan in (
        Plan(name="separate", title="", role="reference", modalities=("image",)),
        Plan(name="shared", title="", role="joint", modalities=("image",)),
        Plan(name="experts", title="", role="joint", modalities=("image",)),
        Plan(name="forest", title="", role="independent", modalities=("image",), stages=trees("ExtraTreesLearner")),
        Plan(name="forest-joint", title="", role="joint", modalities=("image",), stages=trees("JointExtraTreesLearner")),
        Plan(name="constant", title="", role="independent", group="baseline", modalities=("image",), stages=trees("Constant")),
        Plan(name="frozen", title="", role="independent", modalities=("image",), source="pretrained"),
        Plan(name="average", title="", role="independent", modalities=("image",), stages=BLEND),
    )
}
TAKES = {"separate": ["topic", "late"], "shared": ["price", "size"]}
TASKS = {"topic": "multiclass", "price": "regression", "size": "regression", "late": "multiclass"}


def mixed_plan(names: list[str]) -> tuple[Plan, dict[str, list[str]]]:
    """A plan that takes another one for each task, and which."""
    takes = {plan: [task for task in own if task in names] for plan, own in TAKES.items()}
    members = [{"plan": {"name": plan}, "weights": dict.fromkeys(own, 1.0)} for plan, own in takes.items()]
    blend = (TrainStage(learner=Component("graftwork.training.blend:BlendLearner", {"members": members})),)
    return Plan(name="mixed", title="", role="independent", modalities=("image",), stages=blend), takes


def answers(suite: Suite, task: TaskSpec, quality: float, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    """Predictions of a quality (the higher the better), and a validation score near it."""
    target = np.asarray(suite.targets[task.name][suite.splits["test"]])
    luck = 1 + 0.01 * rng.normal()
    if task.kind == "multiclass":
        right = rng.random(len(target)) < quality
        return np.eye(4)[np.where(right, target, (target + 1) % 4)] * 0.7 + 0.075, {"accuracy": quality * luck}
    error = 1.2 - quality
    return target + error * rng.normal(size=target.shape), {"rmse": error * luck}


def affinities(names: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """Steady affinities of a training: most pairs help each other, or most pull."""
    size = len(names)
    value = rng.choice([-0.4, 0.4]) + 0.3 * rng.normal(size=(size, size))
    return {
        "tasks": names,
        "value": value.tolist(),
        "low": (value - 0.01).tolist(),
        "high": (value + 0.01).tolist(),
        "measurements": 6,
    }


def generated(seed: int) -> dict[str, Any]:
    """A result of a random world: its plans, rows, seeds or folds, effects, gaps, costs, controls, weights and wishes."""
    rng = np.random.default_rng(seed)
    names = list(TASKS)[: rng.integers(1, 5)]
    rows = int(rng.choice([20, 60, 150, 400], p=[0.1, 0.2, 0.4, 0.3]))
    suite = make_suite({name: TASKS[name] for name in names}, rows=rows, groups=int(rng.choice([0, 40])) or None)
    plans = [name for name in PLANS if rng.random() < 0.6] or ["shared"]
    records, takes = dict(PLANS), {}
    # A draw of its own, so that worlds without it stay as they are.
    if {"topic", "price"} <= set(names) and np.random.default_rng([seed, 1]).random() < 0.6:
        records["mixed"], takes["mixed"] = mixed_plan(names)
        plans.append("mixed")
    seeds = int(rng.choice([1, 2, 3, 5], p=[0.1, 0.1, 0.4, 0.4]))
    in_folds = rng.random() < 0.3
    size = float(rng.choice([0.0, 0.005, 0.1, 0.25], p=[0.1, 0.2, 0.35, 0.35]))
    swap = rng.random() < 0.15  # validation misleads
    alike = rng.random() < 0.5  # what is hard for one plan is hard for all

    def runs(plan: str, kept: list[str], spread: float) -> list[FinalRun]:
        middle = 0.35 if plan == "constant" and rng.random() < 0.7 else 0.55
        quality = {name: float(np.clip(middle + size * rng.normal(), 0.2, 0.95)) for name in kept}
        number = 1 if in_folds else seeds if rng.random() < 0.9 else 1
        found = []
        for one in range(number):
            predictions, validation = {}, {}
            for name in kept:
                own = float(np.clip(quality[name] * (1 + spread * rng.normal()), 0.1, 0.99))
                stream = np.random.default_rng([seed, one, names.index(name)]) if alike else rng
                predictions[name], validation[name] = answers(suite, suite.task(name), own, stream)
                if swap:
                    validation[name] = answers(suite, suite.task(name), 1.1 - own, rng)[1]
            parts = np.arange(rows) % 5 if in_folds else None
            folds = None
            if in_folds:
                folds = {
                    part: {
                        task: {key: value * (1 + 0.01 * rng.normal()) for key, value in found.items()}
                        for task, found in validation.items()
                    }
                    for part in range(5)
                }
            found.append(
                FinalRun(
                    plan_name=plan, seed=one, predictions=predictions, validation=validation, validation_parts=folds, parts=parts
                )
            )
        return found

    spread = float(rng.choice([0.0, 0.002, 0.02]))
    finals = {plan: runs(plan, [name for name in names if rng.random() < 0.97] or names[:1], spread) for plan in plans}
    joint = [plan for plan in plans if records[plan].role == "joint"]
    controls = {}
    if joint and len(names) > 1 and rng.random() < 0.7:
        plan = str(rng.choice(joint))
        controls = {name: runs(plan, [name], spread) for name in names if rng.random() < 0.8}
    affinity = affinities(names, rng) if controls else None
    ledgers = {
        plan: Ledger(parameters_stored=int(10 ** rng.uniform(3, 7)), latency_ms_batch1=float(rng.uniform(0.1, 9)))
        for plan in plans
        if rng.random() < 0.9
    }
    result = build_verdict(
        suite,
        finals,
        controls=controls,
        affinity=affinity,
        ledgers=ledgers,
        plans=records,
        limits={"max_params": 1e5} if rng.random() < 0.2 else {},
        weights={names[0]: 3.0} if rng.random() < 0.3 else {},
        tolerance=float(rng.choice([0.0, 1.0, 5.0, 50.0])),
        prefer="cost" if rng.random() < 0.5 else "score",
        num_resamples=40,
        seed=seed,
    )
    return {
        **json.loads(json.dumps(result, allow_nan=False)),
        "roles": {plan: records[plan].role for plan in plans},
        "takes": takes,
        "affinity_tasks": names,
    }


@pytest.mark.parametrize("part", range(4))
def test_no_sentence_contradicts_the_result_or_another(part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(60 * part, 60 * (part + 1)):
        result = generated(seed)
        check_verdict(result)
        seen[result["verdict"]["strength"]] += 1
        # It learns nothing together, so no answer to whether the tasks help each other is drawn from it.
        assert not {"mixed"} & {name for row in result["verdict"]["help"] for name in (row["plan"], row["reference"])}
        assert not {"mixed"} & {row[key] for row in result["source_effect"] for key in ("pretrained_plan", "scratch_plan")}
        seen["mixed"] += result["verdict"]["choice"] == "mixed"
        for row in result["comparisons"]:
            assert row["label"] == word_of_row(row)
        for row in result["controls"]:
            pair = [one for one in result["comparisons"] if (one["task"], one["plan"]) == (row["task"], row["plan"])]
            same = [one["label"] for one in pair if one["reference"] == row["reference"]]
            assert same in ([], [row["gain_word"]])
    assert len(seen) >= 3
    assert seen["mixed"] > 0


def test_the_checker_finds_what_is_wrong_with_a_mixed_plan() -> None:
    result = next(found for seed in range(400) if (found := generated(seed))["verdict"]["choice"] == "mixed")
    check_verdict(result)
    verdict = result["verdict"]
    (place,) = [number for number, line in enumerate(verdict["sentences"]) if line.startswith("`mixed` answers each task")]
    line = verdict["sentences"][place]
    for wrong in (
        line.replace("`separate` for", "`frozen` for"),
        line.replace("`price`", "`topic`"),
        line.replace("`mixed`", "`shared`"),
        line.split(", `shared`")[0] + ".",
    ):
        others = [*verdict["sentences"][:place], wrong, *verdict["sentences"][place + 1 :]]
        with pytest.raises(ContradictionError):
            check_verdict({**result, "verdict": {**verdict, "sentences": others}})
    with pytest.raises(ContradictionError):
        check_verdict({**result, "verdict": {**verdict, "sentences": [one for one in verdict["sentences"] if one != line]}})


def test_the_checker_finds_what_is_wrong() -> None:
    result = next(found for seed in range(400) if (found := generated(seed))["verdict"]["strength"] == "asserts")
    check_verdict(result)
    verdict = result["verdict"]
    first = verdict["sentences"][0]
    for wrong in (
        first.replace(f"`{verdict['choice']}`", "`another`"),
        first.replace("better", "worse") if "better" in first else first.replace("worse", "better"),
        first.replace(" %", "7 %", 1),
        first.replace("Use", "Rather use").replace("Train", "Rather train"),
    ):
        with pytest.raises((ContradictionError, StopIteration)):
            check_verdict({**result, "verdict": {**verdict, "sentences": [wrong, *verdict["sentences"][1:]]}})
