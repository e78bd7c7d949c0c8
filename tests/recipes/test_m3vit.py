from __future__ import annotations

import pytest

from graftwork.recipes.sharing.m3vit import FEED_FORWARD, METRICS, RECIPE, derive


def flat(semantic: float, depth: float, normals: float) -> dict[str, float]:
    return {"scores.semantic.miou": semantic, "scores.depth.mae": depth, "scores.normals.mean_angle": normals}


def test_delta_m_by_hand() -> None:
    found = derive({"single": flat(0.5, 0.2, 10.0), "dense": flat(0.45, 0.2, 10.0), "m3vit": flat(0.5, 0.16, 11.0)})
    assert {arm: values["delta_m"] for arm, values in found.items()} == {
        "single": pytest.approx(0.0),
        "dense": pytest.approx(-10 / 3),
        "m3vit": pytest.approx(10 / 3),
    }


def test_conflict_is_measured_on_feed_forward_weights_alone() -> None:
    counted = ["backbone.blocks.0.feed.3", "backbone.blocks.1.feed.expand.weights"]
    left_out = ["backbone.blocks.0.feed_norm", "backbone.blocks.1.feed.router.weights", "backbone.blocks.0.attention.output"]
    assert all(FEED_FORWARD.search(layer) for layer in counted)
    assert not any(FEED_FORWARD.search(layer) for layer in left_out)


def test_arms_spend_the_same() -> None:
    assert set(METRICS) == {"semantic", "depth", "normals"}
    assert {arm.access for arm in RECIPE.arms} == {RECIPE.arm("single").access}
    assert RECIPE.equal_budget[0].arms == ()
    assert set(RECIPE.equal_budget[0].counters) == {"steps", "samples", "labels"}
