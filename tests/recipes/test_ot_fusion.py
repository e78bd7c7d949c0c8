"""The recipe of OT fusion: parents of their own starts, equal tuning, and a plain mean that is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from graftwork.claims.experiment import ArmContext
from graftwork.data.suite import Suite
from graftwork.data.suites.glyphs import glyphs
from graftwork.recipes.merging.ot_fusion import EXACT_MAPS, PARENTS, RECIPE, SOFT_MAPS, build, fuse, make_parents, plain_mean


@pytest.fixture(scope="module")
def suite() -> Suite:
    return glyphs(num_train=64, num_val=20, num_test=20, seed=0)


@pytest.fixture(scope="module")
def parents(suite: Suite, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    folder: Path = tmp_path_factory.mktemp("parents")
    access = RECIPE.arm("soft").access.parts()
    context = ArmContext(slug="ot-fusion", arm="soft", access=access, seed=0, smoke=True, work=folder, shared=folder)
    make_parents(folder, context.guard(suite), 0, context)
    assert context.counts["steps"] == 2 * len(PARENTS)
    return {name: load_file(folder / f"{name}.safetensors") for name in PARENTS}


def test_parents_have_starts_and_widths_of_their_own(parents: dict[str, dict[str, np.ndarray]], suite: Suite) -> None:
    first, second = parents["first"]["backbone.patches.weight"], parents["second"]["backbone.patches.weight"]
    assert first.shape == second.shape
    assert abs(float(np.corrcoef(first.ravel(), second.ravel())[0, 1])) < 0.1
    assert len(parents["wide"]["backbone.norm.weight"]) == 96
    assert set(parents["first"]) == set(build(suite, 64).state_dict())


def test_fused_models_have_the_shape_of_the_anchor(parents: dict[str, dict[str, np.ndarray]], suite: Suite) -> None:
    anchor = parents["second"]
    plain = plain_mean(parents["first"], anchor)
    for name, value in anchor.items():
        np.testing.assert_allclose(plain[name], 0.5 * (value + parents["first"][name]), rtol=1e-6)
    fused = fuse(SOFT_MAPS[0], suite, parents["wide"], anchor, 0)
    assert {name: value.shape for name, value in fused.items()} == {name: value.shape for name, value in anchor.items()}


def test_fused_models_are_tuned_alike_and_choose_from_as_many_maps() -> None:
    tuned = {"vanilla", "soft", "wide"}
    assert any(set(budget.arms) == tuned and "steps" in budget.counters for budget in RECIPE.equal_budget)
    assert len(SOFT_MAPS) == len(EXACT_MAPS)
    assert RECIPE.pilot is not None
    assert {len(RECIPE.pilot.trials(arm)) for arm in RECIPE.pilot.grids} == {4}
