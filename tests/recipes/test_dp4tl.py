"""What the arms of DP4TL keep of the source, and what a target shares with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graftwork.claims.experiment import ArmContext
from graftwork.data.suites.part_families import FAMILIES, class_parts
from graftwork.recipes.selection.dp4tl import CLASSES, RECIPE, TARGETS, kept_rows, source_rows


def make_context(folder: Path) -> ArmContext:
    return ArmContext(
        slug="dp4tl",
        arm="lm",
        access=RECIPE.arm("lm").access.parts(),
        seed=0,
        smoke=True,
        work=folder / "lm",
        shared=folder / "shared",
    )


def test_all_arms_keep_equally_many_rows_and_told_the_family_of_the_target(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    (tmp_path / "shared").mkdir()
    source = source_rows(context)
    assert set(source.labels // CLASSES) == set(range(len(FAMILIES)))
    target = source.images[:20]
    kept = {kind: kept_rows(kind, 0.8, source, target, "icons", context) for kind in ("lm", "fm", "random", "told")}
    assert {len(rows) for rows in kept.values()} == {round(0.2 * len(source.labels))}
    own = source.labels[kept["told"]] // CLASSES == list(FAMILIES).index("icons")
    assert own.mean() > 0.7
    assert (source.labels[kept["random"]] // CLASSES == list(FAMILIES).index("icons")).mean() < 0.7
    assert len(kept_rows("full", 0.0, source, target, "icons", context)) == len(source.labels)
    # Whole classes: all but the last one that is kept.
    counts = np.bincount(source.labels[kept["random"]], minlength=48)
    whole = np.bincount(source.labels, minlength=48)
    assert ((counts > 0) & (counts < whole)).sum() <= 1


def test_the_source_has_parts_of_every_target_and_none_of_its_classes() -> None:
    for family in TARGETS:
        for seed in range(3):
            source = class_parts(CLASSES, skip=0, seed=seed, family=family)
            target = class_parts(12, skip=CLASSES, seed=seed, family=family)
            assert not {tuple(row) for row in source.tolist()} & {tuple(row) for row in target.tolist()}
            assert np.isin(target, source).all()
