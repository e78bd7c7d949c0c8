from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from graftwork.claims.experiment import ArmContext
from graftwork.core.errors import AccessError
from graftwork.recipes.optimization.tram import ARMS, GRIDS, RECIPE, STYLES, _fine_tuning_world, _pretraining_world, run_arm


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
        data.visible.splits["test_edges"]
    assert bool((data.visible.targets["digit"][world.splits["test_edges"]] == -1).all())
    assert bool((data.visible.inputs["numeric"][world.splits["test_edges"]] == 0).all())


def test_styles_draw_the_same_digits(tmp_path: Path) -> None:
    world = _fine_tuning_world(0, make_context("tram", tmp_path))
    pictures = {style: world.inputs["numeric"][world.splits["test" if style == "plain" else f"test_{style}"]] for style in STYLES}
    plain, thick, occluded = (0.4 * pictures[style].reshape(-1, 12, 12) + 0.3 for style in ("plain", "thick", "occluded"))
    assert bool((thick >= plain - 1e-5).all()), "every pixel takes the largest around it"
    np.testing.assert_allclose(occluded[:, 5:8], 0.0, atol=1e-6)
    np.testing.assert_allclose(occluded[:, :5], plain[:, :5], atol=1e-6)


def test_pretraining_sees_training_originals_without_labels(tmp_path: Path) -> None:
    context = make_context("tram", tmp_path)
    pretraining, world = _pretraining_world(0, context), _fine_tuning_world(0, context)
    assert pretraining.task_names == ("coarse",)
    tested = {picture.tobytes() for picture in world.inputs["numeric"][world.splits["test"]]}
    assert not tested & {picture.tobytes() for picture in pretraining.inputs["numeric"]}
    assert pretraining.targets["coarse"].shape == (len(pretraining), 16)


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
