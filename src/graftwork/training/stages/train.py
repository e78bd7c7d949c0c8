"""Carries out the first stage of nearly all plans: its learner trains all tasks."""

from __future__ import annotations

from graftwork.core.stages.train import TrainStage
from graftwork.interfaces.learner import Learner, LearnerContext
from graftwork.training.stages import Earlier

__all__ = ["build"]


def build(stage: TrainStage, context: LearnerContext, earlier: Earlier | None) -> Learner:
    """Return the learner that the stage names."""
    learner: Learner = stage.learner.build(context, seam=Learner)
    return learner
