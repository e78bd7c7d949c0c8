"""What the reproductions of tuning with little memory share: a backbone tuned for a small picture task, and how that is measured; and
how the plan of an arm comes from that on a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graftwork.claims.experiment import ArmContext
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.components import Component
from graftwork.core.plan import Plan
from graftwork.data.suites.small_targets import small_target
from graftwork.training.learner import NeuralLearner

__all__ = ["BATCH", "TunedTarget", "tune_for_target", "tuned_plan"]

TRAIN, VALIDATION, TEST = 600, 300, 1500
STEPS, BATCH = 200, 16
_TUNERS = "graftwork.methods.tuning."


def tuned_plan(slug: str, settings: Mapping[str, Any]) -> Plan:
    """Return a plan of a system's card, with another tuner or other settings where an arm names some.

    Args:
        slug: The system.
        settings: Of the arm: ``tuner`` is ``module:Class`` in the room, or empty for that of the plan, whose settings then hold;
            ``keywords`` are settings of the tuner; ``plan`` names another plan of the card than the first.
    """
    plan = card_plan(slug, str(settings.get("plan", "")))
    assert plan.train.tuning is not None
    path = _TUNERS + str(settings["tuner"]) if settings["tuner"] else plan.train.tuning.path
    own = {} if settings["tuner"] else dict(plan.train.tuning.settings)
    return plan.with_train(tuning=Component(path, {**own, **settings["keywords"]}))


@dataclass(frozen=True, slots=True)
class TunedTarget:
    """A backbone that was tuned for one target."""

    learner: NeuralLearner
    data: GuardedSuite
    test: float
    """Accuracy in percent."""
    validation: float
    held: float
    """Megabytes that a step holds for the backward pass."""

    def pictures(self) -> dict[str, Tensor]:
        """Return the inputs of one step."""
        return {"image": torch.from_numpy(np.array(self.data.visible.inputs["image"][:BATCH]))}


def tune_for_target(plan: Plan, target: str, rate: float, backbone: str, seed: int, context: ArmContext) -> TunedTarget:
    """Tune a backbone for one target and measure it.

    Args:
        plan: How.
        target: Of :mod:`graftwork.data.suites.small_targets`.
        rate: Learning rate.
        backbone: Its name.
        seed: Draws the pictures.
        context: The arm.
    """
    train, validation, test = context.choose(full=(TRAIN, VALIDATION, TEST), smoke=(8, 4, 4))
    data = context.guard(small_target(target, num_train=train, num_val=validation, num_test=test, seed=seed))
    steps = context.choose(full=STEPS, smoke=2)
    learner = context.train(plan, data, steps=steps, overrides={"batch_size": BATCH, "learning_rate": rate}, backbone=backbone)
    assert isinstance(learner, NeuralLearner)
    task = data.visible.task_names[0]
    found = {
        split: 100.0 * float(data.score(split, context.predict(learner, data, split))[task]["accuracy"])
        for split in ("test", "val")
    }
    return TunedTarget(learner, data, found["test"], found["val"], learner.training_ledger().activation_bytes / 1e6)
