"""Training: who trains, with which sharing, tuning, optimisation, extra losses and gradient transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from graftwork.core.components import Component
from graftwork.core.stage import Stage, place

__all__ = ["STAGE", "TrainStage"]

_LEARNER = Component("graftwork.training.learner:NeuralLearner")
_SHARING = Component("graftwork.methods.sharing.shared_trunk:SharedTrunk")
_OPTIMIZATION = Component("graftwork.methods.optimization.equal_weights:EqualWeights")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainStage(Stage):
    """Trains all tasks of a suite."""

    kind: ClassVar[str] = "train"
    follows: ClassVar[bool] = False

    learner: Component = field(default=_LEARNER, metadata=place("learner:Learner", positional=1))
    """The :class:`~graftwork.interfaces.learner.Learner` that trains."""
    sharing: Component = field(default=_SHARING, metadata=place("shared_model:SharedModel", positional=2, keywords=("inputs",)))
    """The sharing operator, a :class:`~graftwork.interfaces.shared_model.SharedModel`."""
    backbone: Component | None = field(default=None, metadata=place("backbone:Backbone", is_model=True))
    """An untrained trunk in place of the library's own, for plans with source ``scratch``; None takes the library's."""
    tuning: Component | None = field(default=None, metadata=place("tuner:Tuner"))
    """A Tuner for pretrained sources (frozen, LoRA, full); None trains everything."""
    optimization: Component = field(default=_OPTIMIZATION, metadata=place("balancer:Balancer"))
    """The balancer of the tasks' losses or gradients."""
    objectives: tuple[Component, ...] = field(default=(), metadata=place("objective:Objective", many=True))
    """Extra losses."""
    transforms: tuple[Component, ...] = field(default=(), metadata=place("transform:GradientTransform", many=True))
    """What changes the gradients before the optimiser sees them, in this order."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of :class:`graftwork.training.config.TrainConfig`."""


STAGE = TrainStage
