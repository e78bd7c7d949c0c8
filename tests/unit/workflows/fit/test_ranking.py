"""Who is ahead and who stays."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.core.input_spec import InputSpec
from graftwork.core.records import Plan, Role, TaskSpec
from graftwork.data.suite import Suite
from graftwork.workflows.fit.ranking import best_of, control_tasks, finalists_of, rung_scores, survivors_of, task_changes


def plan(name: str, role: Role, source: Literal["scratch", "pretrained"] = "scratch") -> Plan:
    return Plan(name=name, title=name, role=role, modalities=("table",), source=source)


PLANS = {
    item.name: item
    for item in (
        plan("separate", "reference"),
        plan("trunk", "joint"),
        plan("moe", "joint"),
        plan("weights", "joint"),
        plan("trees", "independent"),
        plan("frozen", "independent", "pretrained"),
        plan("full", "joint", "pretrained"),
    )
}
SUITE = Suite(
    name="s",
    input_specs={"table": InputSpec(kind="table")},
    tasks=(TaskSpec(name="a", kind="regression", size=1), TaskSpec(name="b", kind="multiclass", size=3)),
    inputs={"numeric": np.zeros((3, 1), np.float32)},
    targets={"a": np.zeros((3, 1), np.float32), "b": np.zeros(3, np.int64)},
    splits={"train": np.arange(1), "val": np.arange(1, 2), "test": np.arange(2, 3)},
)


def result(rmse: float | None, accuracy: float | None, status: str = "ok") -> dict[str, object]:
    return {"status": status, "validation": {"a": {"rmse": rmse}, "b": {"accuracy": accuracy}}}


def test_scores_are_the_mean_change_against_separate_models() -> None:
    found = rung_scores(
        SUITE,
        PLANS,
        {"separate": result(1.0, 0.5), "trunk": result(0.9, 0.6), "moe": result(None, 0.4), "weights": {"status": "diverged"}},
    )
    assert found == pytest.approx({"separate": 0.0, "trunk": 15.0, "moe": -20.0})


def test_weights_count_in_the_score() -> None:
    found = rung_scores(SUITE, PLANS, {"separate": result(1.0, 0.5), "trunk": result(0.9, 0.6)}, {"a": 3.0})
    assert found["trunk"] == pytest.approx((3 * 10.0 + 20.0) / 4)


def test_without_the_separate_models_somebody_else_is_the_measure() -> None:
    found = rung_scores(SUITE, PLANS, {"separate": {"status": "failed"}, "trunk": result(1.0, 0.5), "moe": result(0.5, 0.5)})
    assert found == pytest.approx({"trunk": 0.0, "moe": 25.0})
    assert rung_scores(SUITE, PLANS, {"separate": {"status": "failed"}}) == {}


def test_missing_metrics_are_unknown() -> None:
    changes = task_changes(SUITE, result(None, 0.5)["validation"], result(1.0, 0.5)["validation"])  # type: ignore[arg-type]
    assert np.isnan(changes["a"])
    assert changes["b"] == 0.0


def test_references_survive_whatever_they_score() -> None:
    scores = {"separate": -50.0, "trunk": 4.0, "moe": 5.0, "weights": 6.0, "trees": -60.0, "frozen": -70.0, "full": 9.0}
    kept = survivors_of(PLANS, scores)
    assert kept == ["separate", "moe", "weights", "trees", "frozen", "full", "trunk"] or {
        "separate",
        "trees",
        "frozen",
        "weights",
    } <= set(kept)
    last = finalists_of(PLANS, scores, 1)
    assert last == ["separate", "weights", "trees", "frozen", "full"]


@given(st.dictionaries(st.sampled_from(sorted(PLANS)), st.floats(-100, 100), min_size=1), st.integers(1, 5))
def test_the_best_always_stay(scores: dict[str, float], number: int) -> None:
    leader = max(scores.values())
    for kept in (survivors_of(PLANS, scores), finalists_of(PLANS, scores, number)):
        assert leader in [scores[name] for name in kept]
        assert set(kept) <= set(scores)
        assert len(kept) >= len(scores) / 2 or kept != survivors_of(PLANS, scores)


def test_best_of_takes_the_first_of_equals() -> None:
    assert best_of(PLANS.values(), {"trunk": 1.0, "moe": 1.0}) == "trunk"
    assert best_of([PLANS["trees"]], {"trunk": 1.0}) is None


def test_controls_are_for_the_largest_gains_and_losses() -> None:
    changes = {"a": 1.0, "b": -9.0, "c": float("nan"), "d": 5.0, "e": 0.1}
    assert control_tasks(changes, 2) == ["b", "d"]
    assert control_tasks(changes, 9) == list(changes)
