from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graftwork.claims.experiment import ArmContext
from graftwork.core.errors import AccessError
from graftwork.recipes.generation.stain_diffuser import ARMS, RECIPE, build, cell_f1, hidden_factors, make_world, run_arm


def make_context(name: str, folder: Path, *, smoke: bool = True) -> ArmContext:
    return ArmContext(
        slug="stain-diffuser",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=smoke,
        work=folder / name,
        shared=folder / "shared",
    )


def test_arms_of_one_number_of_triples_have_about_as_many_parameters(tmp_path: Path) -> None:
    sizes = {}
    for kind in ("dual", "single", "regression"):
        step = build(kind, make_context("dual", tmp_path))
        modules = (step.model, *step.modules().values())
        sizes[kind] = sum(parameter.numel() for module in modules for parameter in module.parameters())
    assert sizes["single"] == pytest.approx(sizes["dual"], rel=0.05)
    assert sizes["regression"] == pytest.approx(sizes["dual"], rel=0.1)


def test_arms_without_a_mask_are_handed_none(tmp_path: Path) -> None:
    suite = make_world(200, 0, make_context("single", tmp_path))
    with pytest.raises(AccessError):
        make_context("single", tmp_path).guard(suite).visible.splits["test"]
    seen: dict[str, Any] = {}
    for arm in ("dual", "single"):
        context = make_context(arm, tmp_path)
        run_arm(RECIPE.arm(arm), 0, context)
        seen[arm] = context.counts["labels"]
    # A row has one label a task, however many pixels that is.
    assert seen["dual"] == 2 * seen["single"]


def test_the_true_stain_scores_at_the_ceiling_and_another_pictures_does_not(tmp_path: Path) -> None:
    suite = make_world(200, 0, make_context("dual", tmp_path))
    rows = np.arange(len(suite))
    stain = suite.targets["stain"]
    assert cell_f1(stain, suite, rows)["f1"] > 99.0
    assert cell_f1(np.roll(stain, 1, axis=0), suite, rows)["f1"] < 50.0


def test_test_pictures_do_not_depend_on_the_number_of_triples(tmp_path: Path) -> None:
    context = make_context("dual", tmp_path)
    few, many = (make_world(triples, 0, context) for triples in (200, 400))
    for suite in (few, many):
        assert suite.splits["test"].size == 12
    np.testing.assert_array_equal(few.inputs["image"][few.splits["test"]], many.inputs["image"][many.splits["test"]])


def test_types_are_independent_of_everything_but_the_grain(tmp_path: Path) -> None:
    context = make_context("dual", tmp_path, smoke=False)
    context.independence(hidden_factors(make_world(200, 100, context)))
    assert context.reports["independence"]["factors"]["independent"]


@pytest.mark.slow
def test_all_arms_measure_and_spend_what_is_declared(tmp_path: Path) -> None:
    for arm in ARMS:
        context = make_context(arm.name, tmp_path)
        found = run_arm(arm, 0, context)
        assert {"f1", "train_f1", "ssim", "psnr", "parameters"} <= set(found)
        assert ("mask_f1" in found) == (arm.settings["kind"] == "dual")
        assert context.counts["steps"] == 3
        assert context.counts["samples"] == 48
