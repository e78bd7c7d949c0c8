from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from graftwork.core.errors import AccessError
from graftwork.evaluation.experiment import ArmContext
from graftwork.recipes.optimization.tram import ARMS, GRIDS, RECIPE, STYLES, _fine_tuning_world, run_arm


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="tram",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_every_arm_has_a_grid_of_the_same_size() -> None:
    assert {arm.settings["kind"] for arm in ARMS} == set(GRIDS)
    assert {len(grid) for grid in GRIDS.values()} == {4}
    assert [{**setting, "released": True} for setting in GRIDS["tram"]] == list(GRIDS["released"])


def test_other_styles_are_for_tests_only(tmp_path: Path) -> None:
    context = make_context("tram", tmp_path)
    world = _fine_tuning_world(0, context)
    assert set(world.splits) == {"train", "val", "test", *(f"test_{style}" for style in STYLES[1:])}
    rows = np.concatenate([world.splits[name] for name in world.splits])
    assert len(np.unique(rows)) == len(rows)
    data = context.guard(world, roles={f"test_{style}": "test" for style in STYLES[1:]})
    with pytest.raises(AccessError):
        data.visible.splits["test_night"]
    assert bool((data.visible.targets["main_body"][world.splits["test_night"]] == -1).all())
    assert bool((data.visible.inputs["image"][world.splits["test_night"]] == 0).all())


@pytest.mark.slow
def test_arms_share_the_start_and_count_the_same(tmp_path: Path) -> None:
    contexts = {name: make_context(name, tmp_path) for name in ("adam", "tram", "penalty")}
    starts = []
    for name, context in contexts.items():
        found = run_arm(RECIPE.arm(name), 0, context)
        starts.append(load_file(tmp_path / "shared" / "start" / "start.safetensors"))
        assert (found["mean_radius"] > 0) == (name == "tram")
        assert found["moved"] >= 0
    assert all(bool((starts[0][key] == starts[1][key]).all()) for key in starts[0])
    counts = [context.counts for context in contexts.values()]
    assert counts[0] == counts[1] == counts[2]
