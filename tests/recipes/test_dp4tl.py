"""What the arms of DP4TL keep of the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graftwork.claims.experiment import ArmContext
from graftwork.recipes.selection.dp4tl import LETTERS, RECIPE, STYLES, kept_rows, source_rows


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


def test_all_arms_keep_equally_many_rows_and_told_the_style_of_the_target(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    (tmp_path / "shared").mkdir()
    source = source_rows(context)
    assert set(source.labels // LETTERS) == set(range(len(STYLES)))
    target = source.images[:20]
    kept = {kind: kept_rows(kind, 0.8, source, target, "striped", context) for kind in ("lm", "fm", "random", "told")}
    assert {len(rows) for rows in kept.values()} == {round(0.2 * len(source.labels))}
    own = source.labels[kept["told"]] // LETTERS == STYLES.index("striped")
    assert own.mean() > 0.7
    assert (source.labels[kept["random"]] // LETTERS == STYLES.index("striped")).mean() < 0.7
    assert len(kept_rows("full", 0.0, source, target, "striped", context)) == len(source.labels)
    # Whole classes: all but the last one that is kept.
    counts = np.bincount(source.labels[kept["random"]], minlength=48)
    whole = np.bincount(source.labels, minlength=48)
    assert ((counts > 0) & (counts < whole)).sum() <= 1
