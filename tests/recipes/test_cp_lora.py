from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.claims.experiment import ArmContext
from graftwork.claims.plan_arms import card_plan
from graftwork.methods.sharing.shared_trunk import SharedTrunk
from graftwork.nn.freeze import is_batch_norm, is_mode_fixed
from graftwork.nn.updated_layer import UpdatedLayer
from graftwork.recipes.tuning.cp_lora import ARMS, LABELS, LOW_RANK, RECIPE, SIZE, TUNED, build_model, derive, make_world, prepare


@pytest.fixture
def context(tmp_path: Path) -> ArmContext:
    return ArmContext(slug="cp-lora", arm="x", access=LABELS.parts(), seed=0, smoke=True, work=tmp_path, shared=tmp_path)


@pytest.fixture
def model(context: ArmContext) -> SharedTrunk:
    torch.manual_seed(0)
    return build_model(make_world("target", 24, 0, context), None)


def test_the_network_marks_every_pixel_with_frozen_statistics(model: SharedTrunk, context: ArmContext) -> None:
    world = make_world("target", 24, 0, context)
    pictures = {"image": torch.from_numpy(world.inputs["image"][:2])}
    assert model(pictures)["mask"].shape == (2, 1, SIZE, SIZE)
    assert all(is_mode_fixed(module) for module in model.modules() if is_batch_norm(module))


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.name in LOW_RANK], ids=lambda arm: arm.name)
def test_low_rank_updates_the_kernels_of_3x3_and_the_output(arm: object, model: SharedTrunk, context: ArmContext) -> None:
    settings = arm.settings  # type: ignore[attr-defined]
    pictures = {"image": torch.from_numpy(make_world("target", 24, 0, context).inputs["image"][:2])}
    before = model.eval()(pictures)["mask"]
    large = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.kernel_size == (3, 3)
    ]
    prepare(model, settings)
    updated = {name: layer for name, layer in model.named_modules() if isinstance(layer, UpdatedLayer)}
    assert set(updated) == {*large, "heads.0.output"}
    assert {(layer.form, layer.rank, layer.scaling) for layer in updated.values()} == {(settings["form"], settings["rank"], 1.0)}
    assert all((layer.magnitude is not None) == settings["decompose"] for layer in updated.values())
    torch.testing.assert_close(model.eval()(pictures)["mask"], before, rtol=1e-4, atol=1e-4)


def test_cp_has_less_than_a_quarter_of_the_numbers_of_conv_lora(context: ArmContext) -> None:
    counts = {}
    for name in ("cp", "conv-lora"):
        model = build_model(make_world("target", 24, 0, context), None)
        prepare(model, RECIPE.arm(name).settings)
        counts[name] = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert 4 * counts["cp"] <= counts["conv-lora"]


def test_the_decoder_alone_leaves_the_encoder_as_it_is(model: SharedTrunk) -> None:
    prepare(model, {"learns": "decoder"})
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned
    assert all(name.startswith(("backbone.ups.", "heads.")) for name in learned)


def test_more_pictures_are_the_same_test_and_domains_have_pictures_of_their_own(context: ArmContext) -> None:
    few, many, source = (
        make_world("target", 32, 1, context),
        make_world("target", 64, 1, context),
        make_world("source", 32, 1, context),
    )
    for split in ("val", "test"):
        np.testing.assert_array_equal(few.inputs["image"][few.splits[split]], many.inputs["image"][many.splits[split]])
    assert not np.array_equal(few.inputs["image"][few.splits["test"]], source.inputs["image"][source.splits["test"]])


def test_validation_chooses_the_best_variant_and_shares_are_those_of_full_tuning() -> None:
    values = {name: {"validation": 1.0, "dice": 2.0, "learned": 10.0} for name in (*LOW_RANK, "full", "decoder")}
    values["lora-c"] |= {"validation": 3.0, "dice": 5.0}
    values["full"]["learned"] = 40.0
    found = derive(values)
    assert found["cp"] == {"percent_learned": 25.0, "best_low_rank": 5.0}
    assert found["full"]["percent_learned"] == 100.0


def test_one_arm_is_the_plan_and_all_others_that_learn_from_few_pictures_have_one_budget() -> None:
    plan = card_plan("cp-lora")
    assert plan.train.tuning is not None
    assert plan.train.tuning.path.endswith("cp_lora:CPLoRA")
    assert set(TUNED) == {arm.name for arm in ARMS} - {"none", "bound", "plan"}
    assert RECIPE.equal_budget[0].arms == TUNED
