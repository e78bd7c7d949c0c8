"""The two plans of a distillation: the student alone, and the same student with teachers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import input_kind
from graftwork.core.records import Plan
from graftwork.core.stages.train import TrainStage
from graftwork.data.suite import Suite, labelled_rows
from graftwork.math.representation_similarity import similarity_weights
from graftwork.nn.backbones.catalog import list_backbones, modality_of
from graftwork.nn.backbones.untrained import UNTRAINED
from graftwork.workflows.distill.settings import DistillSettings, numbers_of
from graftwork.workflows.distill.ways import objectives_of

__all__ = ["ALONE", "DISTILLED", "student_plan", "taught_plan", "teacher_shares", "teacher_weights", "unlabelled_rows"]

ALONE, DISTILLED = "student-alone", "distilled"
RELEVANCE_POWER = 9.0
"""Power of the similarity that weighs teachers, as for sources of other tasks."""


def student_plan(settings: DistillSettings, kinds: Sequence[str]) -> tuple[Plan, str]:
    """Return the plan of the student alone, and the name of the pretrained backbone that it starts from (empty for a new one).

    Raises:
        ConfigError: If there is no such student, or it reads other data.
    """
    name, backbone, trunk = settings.student, "", None
    if ":" in name and not name.startswith(tuple(_families())):
        trunk = Component(name)
        trunk.check()
    elif name.partition("@")[0] in UNTRAINED:
        trunk = UNTRAINED[name.partition("@")[0]].component
    elif name != "scratch":
        if modality_of(name) not in kinds:
            raise ConfigError(
                f"The student {name!r} reads {modality_of(name)} data, but the suite's inputs are of the kind "
                f"{', '.join(kinds)}. See: graftwork backbones"
            )
        backbone = name
    plan = Plan(
        name=ALONE,
        title=f"The student {name} alone",
        role="joint",
        group="distillation",
        modalities=("any",),
        source="pretrained" if backbone else "scratch",
        stages=(TrainStage(backbone=trunk),),
    )
    return plan, backbone


def _families() -> list[str]:
    return [info.name.removesuffix("NAME") for info in list_backbones() if info.name.endswith(":NAME")]


def unlabelled_rows(suite: Suite) -> int:
    """Return how many training rows have no label of any task."""
    rows = suite.splits["train"]
    known = np.zeros(len(rows), dtype=bool)
    for task in suite.tasks:
        known |= labelled_rows(suite.targets[task.name][rows])
    return int((~known).sum())


def teacher_weights(settings: DistillSettings, teachers: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the weight of each teacher; they have the sum 1. Of a teacher that gives answers alone no relevance is known; it is
    taken for as relevant as the others are on average.

    Args:
        settings: Say how they are weighed.
        teachers: Results of their jobs.
    """
    if settings.weighting != "relevance":
        return teacher_shares(settings, len(teachers))
    each = [list(teacher.get("relevance", {}).values()) for teacher in teachers]
    means = np.array([float(np.mean(values)) if values else np.nan for values in each])
    known = means[~np.isnan(means)]
    means = np.where(np.isnan(means), known.mean() if len(known) else 1.0, means)
    return [float(weight) for weight in similarity_weights(means, RELEVANCE_POWER)]


def teacher_shares(settings: DistillSettings, count: int) -> list[float]:
    """Return the weight of each of so many teachers where nothing says which is more relevant, as without labels."""
    if settings.weighting in ("relevance", "equal"):
        return [1.0 / count] * count
    given = numbers_of(settings.weighting)
    return [item / sum(given) for item in given]


def taught_plan(
    alone: Plan, settings: DistillSettings, suite: Suite, teachers: Sequence[Mapping[str, Any]], weights: Sequence[float]
) -> tuple[Plan, Plan]:
    """Return both plans: the same trunk, the same labelled rows a step; with teachers the rows without labels are used as well.

    Args:
        alone: From :func:`student_plan`.
        settings: Of the user.
        suite: The data.
        teachers: Results of their jobs.
        weights: Their weights.

    Raises:
        ConfigError: If no teacher can teach in a way that was asked for.
    """
    objectives = objectives_of(
        settings.ways,
        teachers,
        weights,
        temperature=settings.temperature,
        strength=settings.strength,
        taps=settings.tap_pairs,
    )
    training: dict[str, Any] = {}
    if unlabelled_rows(suite):
        rows = int(settings.overrides.get("batch_size", 0)) or (
            32 if alone.source == "pretrained" else min(input_kind(kind).batch_size for kind in suite.kinds)
        )
        alone = alone.with_train(training={"batch_size": rows})
        training = {"quotas": [{"role": "labelled", "rows": rows}, {"role": "unlabelled", "rows": rows}]}
    named = dataclasses.replace(alone, name=DISTILLED, title=f"The student {settings.student}, taught")
    return alone, named.with_train(objectives=objectives, training={**alone.train.training, **training})
