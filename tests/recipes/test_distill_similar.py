"""What the arms of distillation from similar tasks train, and the baseline FixMatch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional as F

from graftwork.core.batch import Batch
from graftwork.core.seeds import Seeds
from graftwork.interfaces.objective import ObjectiveInputs
from graftwork.recipes.distillation.distill_similar import RECIPE, FixMatch, changed_pictures, student_plan

CONTEXT: Any = SimpleNamespace(seeds=Seeds(0))


def test_arms_differ_in_their_objective_and_rows_alone() -> None:
    plans = {
        arm.name: student_plan(arm.name, ["/a", "/b"], [0.9, 0.1], {"rate": 0.002, **arm.settings}, CONTEXT)
        for arm in RECIPE.arms
    }
    assert all(plan.train.backbone == plans["told"].train.backbone for plan in plans.values())
    roles = {name: [quota["role"] for quota in plan.train.training["quotas"]] for name, plan in plans.items()}
    assert [name for name, found in roles.items() if found == ["labelled"]] == ["finetune", "told"]
    sources = [name for name, plan in plans.items() if plan.train.objectives and "answers" in plan.train.objectives[0].settings]
    assert sources == ["random", "equal", "nearest", "weighted"]
    assert all(plans[name].train.objectives == plans["weighted"].train.objectives for name in sources)


def test_strong_changes_are_drawn_by_the_generator_and_change_most_pictures() -> None:
    pictures = torch.randint(0, 256, (8, 16, 16, 3), dtype=torch.uint8)
    first, again, other = (changed_pictures(pictures, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert first.shape == pictures.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(not torch.equal(one, two) for one, two in zip(first, pictures, strict=True))
    # A grey patch of six by six pixels in each.
    assert int((first == 127).all(dim=3).sum(dim=(1, 2)).min()) >= 36


def test_fixmatch_teaches_sure_answers_of_unlabelled_rows_alone() -> None:
    pictures = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    outputs = {"letter": torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.2, 0.0], [0.0, 9.0]])}
    known = torch.tensor([True, False, False, False])
    batch = Batch(
        {"image": pictures}, {"letter": torch.tensor([0, -1, -1, -1])}, {"letter": known}, torch.arange(4), torch.zeros(4).long()
    )
    changed = torch.tensor([[1.0, 0.5], [0.3, 0.1], [0.0, 2.0]])
    seen: list[torch.Tensor] = []

    def model(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(inputs["image"])
        return {"letter": changed}

    found = FixMatch(weight=2.0).loss(ObjectiveInputs(batch, model, outputs, torch.zeros(1), None, 3))  # type: ignore[arg-type]
    expected = (F.cross_entropy(changed[:1], torch.tensor([0])) + F.cross_entropy(changed[2:], torch.tensor([1]))) / 3
    torch.testing.assert_close(found, 2 * expected)
    assert len(seen[0]) == 3
