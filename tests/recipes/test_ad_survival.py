from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.data.suites.creatives import EDGES, creatives
from graftwork.evaluation.metrics import score_task
from graftwork.recipes.applications.ad_survival import (
    ARMS,
    RECIPE,
    click_rates,
    columns_of,
    derive,
    make_plan,
    one_ranking,
    run_arm,
    term_curves,
)

NETS = [arm for arm in ARMS if arm.settings["kind"] == "net"]


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="ad-survival",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_the_system_is_the_plan_on_the_card() -> None:
    assert make_plan(RECIPE.arm("two-term")) == card_plan("ad-survival", "ad-survival")


def test_arms_differ_in_one_thing_each() -> None:
    plans = {arm.name: make_plan(arm).train for arm in NETS}
    ours = plans["two-term"]
    assert plans["single-term"].objectives == ours.objectives
    assert plans["single-term"].sharing.settings == {**ours.sharing.settings, "two_terms": False}
    assert plans["unweighted"].sharing == ours.sharing
    assert plans["unweighted"].objectives[0].settings == {"strength": 0.0}
    assert len({arm.access for arm in ARMS}) == 1


def test_terms_of_a_curve_by_hand() -> None:
    curve = np.linspace(0.95, 0.05, len(EDGES))[None]
    terms = term_curves(curve)
    assert terms["short"].shape == terms["long"].shape == (1, 10)
    assert terms["short"][0, -1] == pytest.approx(curve[0, 9])
    assert terms["long"][0, 0] == pytest.approx(curve[0, 10] / curve[0, 9])


def test_a_ranking_scores_both_terms_by_its_order() -> None:
    world = creatives(rows=400, test_rows=200, terms=True, seed=3)
    rows = world.splits["test"]
    time = world.targets["life"][rows, 0]
    order = np.argsort(np.argsort(time)) / len(time)
    for term, curve in one_ranking(order).items():
        assert score_task(world.task(term), world.targets[term][rows], curve)["concordance"] == 1.0


def test_click_rates_have_the_mean_one_and_are_those_of_the_table() -> None:
    world = creatives(rows=2000, test_rows=100, seed=3)
    rates = click_rates(world)
    assert rates[world.splits["train"]].mean() == pytest.approx(1.0, abs=0.01)
    assert rates.min() >= 0.0
    assert rates[world.raw["truth"]["popular"] > 0.9].min() > 1.2


def test_cox_sees_the_table_alone() -> None:
    world = creatives(rows=300, test_rows=20, seed=3)
    assert columns_of(world).shape == (320, 6 + 7 + 2 + 5)


def test_no_arm_sees_hidden_things_of_the_world(tmp_path: Path) -> None:
    world = creatives(rows=300, test_rows=20, terms=True, seed=3)
    data = make_context("two-term", tmp_path).guard(world)
    assert not {"factors", "truth"} & set(data.visible.raw)
    assert not {"factors", "truth"} & set(data.questions("test").raw)


def test_what_may_be_lost_is_added_before_it_is_compared() -> None:
    assert derive({"two-term": {"mean": 70.0}}) == {"two-term": {"mean_and_one": 71.0}}


@pytest.mark.slow
def test_nets_spend_the_same_and_everything_is_measured(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    contexts = {arm.name: make_context(arm.name, tmp_path) for arm in ARMS}
    found = {arm.name: run_arm(arm, 0, contexts[arm.name]) for arm in ARMS}
    nets = [contexts[arm.name].counts for arm in NETS]
    assert nets[0] == nets[1] == nets[2]
    assert {context.counts["labels"] for context in contexts.values()} == {nets[0]["labels"]}
    for values in found.values():
        assert {"short", "long", "mean", "clicks_short", "clicks_long", "clicks_mean"} <= set(values)
        assert 0.0 <= values["mean"] <= 100.0
    assert found["oracle"]["mean"] > 70.0
