from __future__ import annotations

import pytest

from graftwork.core.input_spec import image_input
from graftwork.data.suites.scenes import TASKS
from graftwork.evaluation.probes import count_parameters
from graftwork.recipes.sharing.mtlora import ARMS, METRICS, RECIPE, build_model, derive, new_base

DENSE = [TASKS[name] for name in METRICS]
SIZES = image_input(32)


def trainable(name: str) -> int:
    return count_parameters(build_model(RECIPE.arm(name).settings, DENSE, SIZES, None)).trainable


def measured(semantic: float, depth: float, trained: float) -> dict[str, float]:
    return {
        "scores.semantic.miou": semantic,
        "scores.depth.mae": depth,
        "scores.normals.mean_angle": 10.0,
        "scores.edges.ods_f1": 0.5,
        "parameters.trainable": trained,
    }


def test_derived_numbers_by_hand() -> None:
    found = derive({"single": measured(0.5, 0.2, 40), "mtlora": measured(0.55, 0.18, 5), "full": measured(0.45, 0.2, 20)})
    assert found["mtlora"] == {"delta_m": pytest.approx(5.0), "trained_percent": pytest.approx(25.0)}
    assert found["full"] == {"delta_m": pytest.approx(-2.5), "trained_percent": pytest.approx(100.0)}


def test_arms_are_as_large_as_the_claim_says() -> None:
    sizes = {arm.name: trainable(arm.name) for arm in ARMS}
    assert sizes["mtlora"] <= 0.3 * sizes["full"]
    assert abs(sizes["shared-lora"] - sizes["mtlora"]) <= 0.02 * sizes["mtlora"]
    assert sizes["decoders"] == sizes["decoders-untrained"] < sizes["mtlora"]
    full = count_parameters(build_model(RECIPE.arm("full").settings, DENSE, SIZES, None))
    assert full.total - full.trainable == 0


def test_arms_start_from_the_given_base() -> None:
    weights = {name: tensor.clone() for name, tensor in new_base().state_dict().items() if not name.startswith("norm.")}
    model = build_model(RECIPE.arm("decoders").settings, DENSE, SIZES, weights)
    state = model.state_dict()
    assert all((state[f"backbone.{name}"] == tensor).all() for name, tensor in weights.items())


def test_what_is_compared_is_equal_in_all_arms() -> None:
    assert {arm.access for arm in ARMS} == {RECIPE.arm("full").access}
    assert [budget.arms for budget in RECIPE.equal_budget] == [()]
    assert {"mode", "scaling", "dropout"}.isdisjoint(RECIPE.arm("mtlora").settings["model"]), "the system runs at its defaults"
