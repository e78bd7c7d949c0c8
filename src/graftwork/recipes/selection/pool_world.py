"""What recipes about sources share: a pool of sources with its table of true results, and what an arm may see of the targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.claims.experiment import ArmContext
from graftwork.data.suites.glyph_styles import STYLES, GlyphDomain, draw_domain
from graftwork.interfaces.scorer import ScoredRows, SourceFacts
from graftwork.training.source_pool.members import PoolMember
from graftwork.training.source_pool.settings import PoolSettings
from graftwork.training.source_pool.table import PictureTable, build_table, target_suite

__all__ = ["POOL_SIZES", "TASK", "SeenTarget", "generic_facts", "look_at_target", "pool_table", "true_labels"]

TASK = "letter"
POOL_SIZES = PoolSettings(
    channels=(8, 16, 32, 32), source_rows=2000, target_rows=180, test_rows=600, source_steps=250, tune_steps=120, packaged=False
)
"""Of counting runs; each seed draws alphabets, pictures and weights of its own."""
_SMOKE: dict[str, Any] = {
    "source_rows": 60,
    "target_rows": 48,
    "test_rows": 60,
    "source_steps": 3,
    "tune_steps": 2,
    "channels": (8, 8, 8, 8),
    "targets": ("new-plain", "new-striped"),
}
_GENERIC_ROWS = 60
"""Generic pictures of each style."""


@dataclasses.dataclass(frozen=True)
class SeenTarget:
    """A target as an arm sees it."""

    name: str
    images: NDArray[np.uint8]
    """Training pictures, ``[N, S, S, 3]``."""
    labels: NDArray[np.int64]

    def rows(self, member: PoolMember) -> ScoredRows:
        """Return what a source sees of the training rows."""
        features = member.features(self.images)
        return ScoredRows(target=self.labels, features=features, probabilities=member.probabilities(features))


def pool_table(context: ArmContext, members: Sequence[str], *, smoke_members: int = 4, test_rows: int = 0) -> PictureTable:
    """Return the table of true results of this seed's pool, made once for all arms. It belongs to the world: no arm is charged with
    it, and arms look at it after they have scored.

    Args:
        context: The arm.
        members: Names of the generated members; empty takes all.
        smoke_members: How many of them a smoke run takes.
        test_rows: Test rows of each target in a full run; 0 takes those of :data:`POOL_SIZES`.
    """
    rows = test_rows or POOL_SIZES.test_rows
    settings = dataclasses.replace(POOL_SIZES, members=tuple(members), seed=context.seed, test_rows=rows)
    if context.smoke:
        settings = dataclasses.replace(settings, **{**_SMOKE, "members": tuple(members)[:smoke_members]})

    def build(folder: Path) -> None:
        build_table(settings, folder, on_progress=lambda done, rows, what: context.progress(done / rows, what))

    # Every row is read now; none is made again.
    return build_table(settings, context.once("pool", build))


def look_at_target(context: ArmContext, name: str, settings: PoolSettings) -> SeenTarget:
    """Return the training rows of a target through the arm's guard."""
    visible = context.guard(target_suite(name, settings)).visible
    rows = visible.splits["train"]
    return SeenTarget(name, np.asarray(visible.inputs["image"])[rows], np.asarray(visible.targets[TASK])[rows])


def true_labels(name: str, settings: PoolSettings) -> NDArray[np.int64]:
    """Return the labels of a target's test rows: for the truth that scores are compared with, never for a score."""
    suite = target_suite(name, settings)
    return np.asarray(suite.targets[TASK])[suite.splits["test"]]


def generic_facts(member: PoolMember, seed: int) -> SourceFacts:
    """Return mean and deviation of a source's features over pictures of every style, which belong to no target: what photographs of
    everything are to models of photographs.

    Args:
        member: The source.
        seed: Draws the pictures.
    """
    drawn: list[Any] = [
        draw_domain(GlyphDomain(name=f"generic {style}", style=style), num_train=_GENERIC_ROWS, num_test=1, seed=seed)
        for style in STYLES
    ]
    images = np.concatenate([np.asarray(suite.inputs["image"])[suite.splits["train"]] for suite in drawn])
    features = member.features(images)
    return SourceFacts(name=member.name, mean=features.mean(axis=0), deviation=features.std(axis=0))
