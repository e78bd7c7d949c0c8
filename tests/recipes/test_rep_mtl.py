from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.optimization.rep_mtl import ARMS, METRICS, RECIPE, STYLES, _log_score, derive, run_arm


def flat(semantic: float, depth: float, normals: float) -> dict[str, float]:
    return {"scores.semantic.miou": semantic, "scores.depth.mae": depth, "scores.normals.mean_angle": normals}


def over_styles(miou: float) -> dict[str, float]:
    return {f"scores.semantic_{style}.miou": miou for style in STYLES}


def test_delta_m_by_hand() -> None:
    seed = {
        "single": flat(0.5, 0.2, 10.0),
        "equal": flat(0.45, 0.2, 10.0),  # -10 % of one of three tasks
        "rep-mtl": flat(0.5, 0.16, 11.0),  # +20 % and -10 %
        "nash": {"step_ms": 80.0},
        "nash-solver": {"step_ms": 90.0},
        "domains-equal": over_styles(0.5),
        "domains-rep-mtl": over_styles(0.55),
    }
    found = {arm: values["delta_m"] for arm, values in derive(seed).items()}
    assert found == {
        "single": pytest.approx(0.0),
        "equal": pytest.approx(-10 / 3),
        "rep-mtl": pytest.approx(10 / 3),
        "domains-equal": pytest.approx(0.0),
        "domains-rep-mtl": pytest.approx(10.0),
    }


def test_arms_differ_only_in_what_is_compared() -> None:
    plain, system = RECIPE.arm("equal").settings, RECIPE.arm("rep-mtl").settings
    assert {name for name in system if system[name] != plain.get(name)} == {"factor", "terms"}
    for name, left_out in (("tsr", "lambda_csa"), ("csa", "lambda_tsr")):
        terms = RECIPE.arm(name).settings["terms"]
        assert {**system, "terms": terms} == RECIPE.arm(name).settings
        assert {term for term, share in terms.items() if share == 0} == {left_out}
    assert {arm.access for arm in ARMS} == {RECIPE.arm("equal").access}
    grouped = [set(budget.arms) for budget in RECIPE.equal_budget]
    assert set.union(*grouped) == {arm.name for arm in ARMS} - {"nash", "nash-solver", "more"}
    assert all({"steps", "samples", "labels"} <= set(budget.counters) for budget in RECIPE.equal_budget)


def test_log_scores_differ_by_relative_changes_in_points() -> None:
    scores = {"semantic": {"miou": 0.5}, "depth": {"mae": 0.2}, "normals": {"mean_angle": 10.0}}
    better = {"semantic": {"miou": 0.505}, "depth": {"mae": 0.198}, "normals": {"mean_angle": 9.9}}
    assert _log_score(better) - _log_score(scores) == pytest.approx(1.0, abs=0.01)


@pytest.mark.slow
def test_arms_measure_and_count_the_same(tmp_path: Path) -> None:
    counts = {}
    for name in ("single", "rep-mtl", "equal"):
        arm = RECIPE.arm(name)
        context = ArmContext(
            slug="rep-mtl",
            arm=name,
            access=arm.access.parts(),
            seed=0,
            smoke=True,
            work=tmp_path / name,
            shared=tmp_path / "shared",
        )
        measured = run_arm(arm, 0, context)
        assert set(measured["scores"]) == set(METRICS)
        assert all(metric in measured["scores"][task] for task, metric in METRICS.items())
        assert measured["step_ms"] > 0
        counts[name] = context.counts
        assert ("independence" in context.reports) == (name == "single")
    assert counts["single"] == counts["rep-mtl"] == counts["equal"]
