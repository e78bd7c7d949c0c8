"""What the reproductions of tuning beside a trunk share: MiniLM, two short text tasks with few labels, and how an arm is tuned and
measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from graftwork.claims.experiment import Access, Arm, ArmContext, Measurements
from graftwork.data.suites.short_text_mix import short_text_mix
from graftwork.recipes.tuning.small_target_arms import tuned_plan
from graftwork.training.learner import NeuralLearner

__all__ = ["BACKBONE", "BATCH", "FEW", "STEPS", "TASKS", "side_arm", "tune_texts"]

BACKBONE = "minilm"
TASKS = ("languages", "emoji-german")
"""Which language a name is in, and what kind of thing a German name means: MiniLM learned from English, and its last layer is about
meaning."""
FEW, STEPS, BATCH = 300, 250, 16
LABELS = Access(source_labels=True)


def side_arm(name: str, title: str, tuner: str, rate: float, *, plan: str = "", all_labels: bool = False, **keywords: Any) -> Arm:
    """Return an arm.

    Args:
        name: Its name.
        title: For people.
        tuner: ``module:Class`` in the room; empty takes that of the plan.
        rate: Learning rate.
        plan: Name of a plan of the system's card; empty takes the first.
        all_labels: Whether it learns from all labels of a task.
        keywords: Settings of the tuner.
    """
    settings = {"tuner": tuner, "plan": plan, "keywords": keywords, "rate": rate, "all_labels": all_labels}
    return Arm(name, title, LABELS, settings)


def tune_texts(slug: str, arm: Arm, seed: int, context: ArmContext) -> Measurements:
    """Tune for each task; return accuracies in percent, their mean, megabytes held for the backward pass, and numbers that learn without
    heads."""
    overrides = {"batch_size": BATCH, "learning_rate": float(arm.settings["rate"])}
    count = None if arm.settings["all_labels"] else FEW
    sizes: dict[str, Any] = context.choose(full={"num_train": count}, smoke={"num_train": 4, "num_test": 2})
    test, validation, held, learned = {}, [], [], 0
    tasks = context.choose(full=TASKS, smoke=TASKS[:1])
    for number, task in enumerate(tasks):
        data = context.guard(short_text_mix([task], seed=seed, **sizes))
        learner = context.train(
            tuned_plan(slug, arm.settings),
            data,
            steps=context.choose(full=STEPS, smoke=2),
            overrides=overrides,
            backbone=BACKBONE,
        )
        assert isinstance(learner, NeuralLearner)
        test[task] = 100.0 * data.score("test", context.predict(learner, data))[task]["accuracy"]
        validation.append(100.0 * data.score("val", context.predict(learner, data, "val"))[task]["accuracy"])
        held.append(learner.training_ledger().activation_bytes / 1e6)
        learned = sum(item.numel() for item in learner.model.shared_parameters() if item.requires_grad)
        context.progress((number + 1) / len(tasks), task)
    return {
        "accuracy": test,
        "mean": float(np.mean(list(test.values()))),
        "validation": float(np.mean(validation)),
        "held": float(np.mean(held)),
        "learned": learned,
    }
