from __future__ import annotations

import pytest

from graftwork.core.cards import load_cards
from graftwork.nn.backbones.catalog import build_backbone
from graftwork.recipes.tuning import sherl, unipt
from graftwork.recipes.tuning.side_texts import BACKBONE, TASKS
from graftwork.recipes.tuning.small_target_arms import tuned_plan


@pytest.fixture(scope="module")
def learned() -> dict[tuple[str, str], int]:
    found = {}
    for slug, module in (("unipt", unipt), ("sherl", sherl)):
        for arm in module.ARMS:
            if arm.name in ("unipt", "lst", "sherl", "lora"):
                backbone = build_backbone(BACKBONE)
                tuner = tuned_plan(slug, arm.settings).train.tuning.build()  # type: ignore[union-attr]
                tuner.attach(backbone)
                found[slug, arm.name] = sum(parameter.numel() for parameter in tuner.trainable())
    return found


@pytest.mark.parametrize(("slug", "own", "others"), [("unipt", "unipt", ["lst"]), ("sherl", "sherl", ["unipt", "lst"])])
def test_rivals_learn_as_many_numbers_within_a_tenth(
    slug: str, own: str, others: list[str], learned: dict[tuple[str, str], int]
) -> None:
    for other in others:
        assert abs(learned[slug, own] - learned[slug, other]) < 0.1 * min(learned[slug, own], learned[slug, other])


def test_variants_follow_the_system_and_differ_in_one_setting() -> None:
    for module, own, variants in ((unipt, "unipt", ["uniform-depths", "uniform-tokens"]), (sherl, "sherl", ["undivided"])):
        recipe = module.RECIPE
        assert recipe.pilot is not None
        plain = recipe.arm(own).settings
        for name in variants:
            assert recipe.pilot.follows[name] == own
            other = recipe.arm(name).settings
            assert len(other["keywords"]) == 1
            assert {**other, "keywords": {}} == dict(plain)


def test_arms_with_few_labels_have_one_budget_and_tasks_are_two() -> None:
    for module in (unipt, sherl):
        few = {arm.name for arm in module.ARMS if not arm.settings["all_labels"]}
        assert set(module.RECIPE.equal_budget[0].arms) == few
        assert {arm.name for arm in module.ARMS} - few == {"bound"}
    assert len(TASKS) == 2
    assert {plan["name"] for plan in load_cards()["unipt"].plans} == {"unipt", "lst"}
