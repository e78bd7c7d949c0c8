"""Arms that are plans of the race: trained by the same learners as ``graftwork fit`` trains them, on what the arm may see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from graftwork.core.errors import ConfigError
from graftwork.core.records import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from graftwork.claims.budget_callback import BudgetCallback
    from graftwork.claims.convergence import Points
    from graftwork.claims.guards import GuardedSuite
    from graftwork.core.seeds import Seeds
    from graftwork.data.suite import Suite
    from graftwork.interfaces.learner import Learner

__all__ = ["TrainingArm", "card_plan", "predict_split", "train_plan", "trained_source"]


class TrainingArm(Protocol):
    """What training needs of an arm (see :class:`graftwork.claims.arm_context.ArmContext`)."""

    seeds: Seeds
    work: Path

    @property
    def counts(self) -> dict[str, int]:
        """What the arm spent so far."""

    def count(self, counter: str, amount: int = 1) -> None:
        """Charge the arm."""

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the arm is."""

    def guard(self, suite: Suite, *, roles: Mapping[str, str] | None = None) -> GuardedSuite:
        """Return what the arm may see."""

    def once(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a folder that is filled once for all arms of a seed."""

    def budget_callback(self) -> BudgetCallback:
        """Return what counts steps and samples."""

    def record_curve(self, measure: str, points: Points, *, larger_is_better: bool) -> None:
        """Keep a curve of the training."""


def card_plan(slug: str, name: str = "") -> Plan:
    """Return a plan that a card offers.

    Args:
        slug: The system.
        name: Name of the plan; empty takes the first.

    Raises:
        ConfigError: If there is no such card or plan.
    """
    from graftwork.core.cards import load_cards

    cards = load_cards()
    if slug not in cards:
        raise ConfigError(f"There is no system {slug!r}; see `graftwork systems`.")
    plans = {str(plan["name"]): plan for plan in cards[slug].plans}
    if not plans or (name and name not in plans):
        raise ConfigError(f"The card {slug!r} has no plan {name!r}; its plans are {', '.join(plans) or 'none'}.")
    values = dict(plans[name] if name else next(iter(plans.values())))
    # In which modalities the race takes it without being asked, and what it asks for there.
    for key in ("default", "asks"):
        values.pop(key, None)
    return Plan.from_json({"system": slug, **values})


def train_plan(
    context: TrainingArm,
    plan: Plan,
    data: GuardedSuite,
    *,
    steps: int,
    seed: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    backbone: str = "",
    start: Mapping[str, Tensor] | None = None,
) -> Learner:
    """Train a plan on the visible part of a guarded suite, and charge the arm with its steps and samples.

    Args:
        context: The arm.
        plan: What to train; :func:`card_plan` gives those of cards.
        data: Guarded data; its ``train`` rows are learned from, with those of the target that the arm may see, and its ``val``
            rows choose the best weights.
        steps: Optimiser steps (boosting rounds, as the learner counts them).
        seed: Seed of weights and batches; None takes the stream ``plan`` of the job's seed, equal for all arms.
        overrides: Training settings that are stronger than the plan's.
        backbone: Name of the pretrained backbone, where the plan starts from one.
        start: Weights by name that the model begins with; of a source, ``learner.best_model.state_dict()``.

    Raises:
        ConfigError: If a setting cannot be used.
        TrainingDivergedError: If a loss became NaN or infinite.
    """
    own = context.seeds.integer("plan") if seed is None else seed
    learner = _learner(context, plan, data, steps, own, overrides, backbone, start)
    # Callbacks count while it trains; the difference tells whether the learner has a loop that calls them.
    before = context.counts.get("steps", 0)
    learner.train(steps, on_progress=lambda step: context.progress(step / steps, f"{plan.name}, step {step}"))
    if context.counts.get("steps", 0) == before:  # learners without a training loop (trees) count by themselves
        ledger = learner.ledger()
        context.count("steps", learner.step)
        context.count("samples", ledger.samples)
    # Networks keep the loss per task over that of the best constant; other learners have no such curve.
    validation: list[tuple[int, Mapping[str, float]]] = getattr(learner, "validation", [])
    points = [(step, sum(losses.values()) / len(losses)) for step, losses in validation if losses]
    if points:
        context.record_curve("validation loss", points, larger_is_better=False)
    return learner


def trained_source(
    context: TrainingArm,
    name: str,
    plan: Plan,
    suite: Suite,
    *,
    steps: int,
    roles: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    backbone: str = "",
) -> Learner:
    """Return a trained plan that several arms start from (a teacher, a source model), trained once for all arms of a seed.

    Every arm that asks for it is charged with its steps, samples and labels, and must have declared what it saw. The learner that
    comes back can be trained on; it is the caller's own.

    Args:
        context: The arm.
        name: Name of the source, the same in all arms; part of its seed, so that sources of other names differ.
        plan: What to train.
        suite: The whole world; what the arm may see of it is learned from.
        steps: Optimiser steps.
        roles: What each split is, as :meth:`graftwork.claims.arm_context.ArmContext.guard` takes it.
        overrides: Training settings that are stronger than the plan's.
        backbone: Name of the pretrained backbone, where the plan starts from one.

    Raises:
        ConfigError: If a setting cannot be used, or the name cannot be that of a folder.
        AccessError: If the arm did not declare what the source saw.
    """
    seed = context.seeds.integer(f"source/{name}")

    def build(folder: Path) -> None:
        data = context.guard(suite, roles=roles)  # in here, so that what was seen is on record for all arms
        train_plan(context, plan, data, steps=steps, seed=seed, overrides=overrides, backbone=backbone).save(folder / "learner")

    folder = context.once(f"source-{name}", build)
    # Built anew for every arm, also for the one that trained: all of them go on from the same file.
    learner = _learner(context, plan, context.guard(suite, roles=roles), steps, seed, overrides, backbone)
    charged = context.counts
    learner.load(folder / "learner")
    for counter in ("steps", "samples"):  # a checkpoint brings what it has cost, which was charged by `once`
        context.count(counter, charged.get(counter, 0) - context.counts.get(counter, 0))
    return learner


def _learner(
    context: TrainingArm,
    plan: Plan,
    data: GuardedSuite,
    steps: int,
    seed: int,
    overrides: Mapping[str, Any] | None,
    backbone: str,
    start: Mapping[str, Tensor] | None = None,
) -> Learner:
    from graftwork.interfaces.learner import LearnerContext
    from graftwork.training.stages import learner_of

    return learner_of(
        LearnerContext(
            suite=data.for_training(),
            plan=plan,
            seed=seed,
            max_steps=steps,
            cache=context.work / "cache",
            backbone=backbone,
            overrides=dict(overrides or {}),
            callbacks=(context.budget_callback(),),
            start=dict(start or {}),
        )
    )


def predict_split(learner: Learner, data: GuardedSuite, split: str = "test") -> dict[str, NDArray[np.generic]]:
    """Return predictions for all rows of a split from its inputs alone, in the user's units, for :meth:`.GuardedSuite.score`."""
    from graftwork.training.assembly import prepare_inputs

    # Questions hold no labels at all, so nothing can leak into a prediction.
    asked = data.questions(split)
    inputs = prepare_inputs(asked, learner.context.plan, learner.context.backbone).inputs
    return learner.predict(asked.splits[split], inputs=inputs)
