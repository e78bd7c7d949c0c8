"""What the arms of the knowledge transfer train."""

from __future__ import annotations

import torch

from graftwork.recipes.distillation.kd_any import MEMBERS, RECIPE, PixelPerceptron, base_plan, transfer_plan


def test_all_arms_are_the_plan_on_the_card_with_another_objective_or_weight() -> None:
    plans = {arm.name: transfer_plan(arm.name, "resnet", "/answers", 0.01) for arm in RECIPE.arms}
    assert all(plan.train.backbone == MEMBERS["resnet"][0] for plan in plans.values())
    for name, plan in plans.items():
        training = dict(plan.train.training)
        assert (training["learning_rate"], training["optimizer"], training["evaluations"]) == (0.01, "sgd", 0)
        assert (training["ema_decay"] > 0) == (name == "mcl")
        # Labels teach by themselves only where the arm says so.
        assert plan.train.optimization.settings["weights"] == [1.0 if name in ("xe-kl", "labels") else 0.0]
    masks = {name: plan.train.objectives[0].settings.get("mask") for name, plan in plans.items() if plan.train.objectives}
    assert masks == {"kl": None, "xe-kl": None, "mcl": None, "dp": "labels", "dp-unlabelled": "confidence"}
    assert not plans["labels"].train.objectives
    assert all(plan.train.objectives[0].settings["answers"] == ["/answers"] for name, plan in plans.items() if name != "labels")


def test_members_of_the_pool_differ() -> None:
    members = list(MEMBERS.values())
    assert len(members) == 4
    assert all(one not in members[:number] for number, one in enumerate(members))
    assert base_plan("shifted").train.training["augment"] == "shift"


def test_the_perceptron_sees_grey_pixels() -> None:
    pictures = torch.randint(0, 256, (3, 16, 16, 1), dtype=torch.uint8).repeat(1, 1, 1, 3)
    found = PixelPerceptron()({"image": pictures})
    assert found.shape == (3, 128)
    assert bool(found.isfinite().all())
