from __future__ import annotations

from pathlib import Path

import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.optimization.rep_mtl import ARMS, METRICS, RECIPE, STYLES, derive, run_arm


def flat(semantic: float, depth: float, normals: float) -> dict[str, float]:
    return {"scores.semantic.miou": semantic, "scores.depth.mae": depth, "scores.normals.mean_angle": normals}


def over_styles(miou: float) -> dict[str, float]:
    return {f"scores.semantic_{style}.miou": miou for style in STYLES}


def test_delta_m_by_hand() -> None:
    seed = {
        "single": flat(0.5, 0.2, 10.0),
        "equal": flat(0.45, 0.2, 10.0),  # -10 % of one of three tasks
        "rep-mtl": flat(0.5, 0.16, 11.0),  # +20 % and -10 %
        "domains-single": over_styles(0.5),
        "domains-equal": over_styles(0.55),
    }
    found = {arm: values["delta_m"] for arm, values in derive(seed).items()}
    assert found == {
        "single": pytest.approx(0.0),
        "equal": pytest.approx(-10 / 3),
        "rep-mtl": pytest.approx(10 / 3),
        "domains-single": pytest.approx(0.0),
        "domains-equal": pytest.approx(10.0),
    }


def test_arms_differ_only_in_what_is_compared() -> None:
    equal, system = RECIPE.arm("equal").settings, RECIPE.arm("rep-mtl").settings
    assert {key: system[key] for key in equal} == equal, "the same world, network and rate"
    assert system["terms"] == ["lambda_tsr", "lambda_csa"]
    for ablation in ("tsr", "csa"):
        assert RECIPE.arm(ablation).settings == {**system, "terms": [f"lambda_{ablation}"]}
    assert {arm.access for arm in ARMS} == {RECIPE.arm("equal").access}
    grouped = [set(budget.arms) for budget in RECIPE.equal_budget]
    assert set.union(*grouped) == {arm.name for arm in ARMS}
    assert all({"steps", "samples", "labels"} <= set(budget.counters) for budget in RECIPE.equal_budget)


@pytest.mark.slow
def test_arms_measure_and_count_the_same(tmp_path: Path) -> None:
    counts = {}
    for name in ("single", "rep-mtl", "nash"):
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
        assert measured["wide_step_ms"] > 0
        counts[name] = context.counts
        assert ("independence" in context.reports) == (name == "single")
    assert counts["single"] == counts["rep-mtl"] == counts["nash"]
