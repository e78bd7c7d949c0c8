from __future__ import annotations

import pytest

from graftwork.core.records import Component
from graftwork.data.suites.behaviours import behaviours
from graftwork.nn.backbones.behaviour import BehaviourBackbone
from graftwork.recipes.sharing.dtrn import RECIPE, derive


def test_baselines_are_of_equal_size() -> None:
    suite = behaviours(rows=200, test_rows=50, length=12)
    sizes = {}
    for arm in RECIPE.arms:
        model = Component(arm.settings["sharing"], arm.settings["options"]).build(
            suite.tasks, lambda: BehaviourBackbone(suite.only_input.sizes), inputs=suite.input_specs
        )
        sizes[arm.name] = sum(parameter.numel() for parameter in model.parameters())
    for name in ("mmoe", "ple", "shared"):
        assert sizes[name] == pytest.approx(sizes["dtrn"], rel=0.1), sizes
    assert sizes["single"] > sizes["dtrn"], "the reference is not starved"


def test_hurt_tasks_are_counted_against_single_models() -> None:
    def areas(click: float, cart: float, buy: float) -> dict[str, float]:
        return {"auc.click": click, "auc.cart": cart, "auc.buy": buy, "parameters": 50.0}

    found = derive({"single": areas(70, 71, 72), "shared": areas(69, 71, 70), "dtrn": {**areas(70, 71, 73), "parameters": 100.0}})
    assert {arm: values["hurt_tasks"] for arm, values in found.items()} == {"single": 0.0, "shared": 2.0, "dtrn": 0.0}
    assert found["shared"]["relative_size"] == 0.5


def test_arms_differ_only_in_what_is_compared() -> None:
    ours = RECIPE.arm("dtrn").settings
    assert ours["options"] == {}, "the system runs at its defaults"
    assert RECIPE.arm("no-tim").settings["options"] == {"tim": "none"}
    assert RECIPE.arm("no-trm").settings["options"] == {"trm": False}
    assert len({arm.access for arm in RECIPE.arms}) == 1
