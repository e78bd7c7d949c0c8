"""Reproduction of DANN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from graftwork.claims.experiment import Access, Arm, ArmContext, EqualBudget, Inequality, Measurements, Recipe
from graftwork.claims.guards import GuardedSuite
from graftwork.claims.plan_arms import card_plan
from graftwork.core.batch import UNLABELLED
from graftwork.core.components import Component
from graftwork.core.records import Plan
from graftwork.data.loader import iter_rows
from graftwork.data.suite import Suite
from graftwork.data.suites.domain_pairs import rotated_moons, textured_digits
from graftwork.evaluation.domain_distance import proxy_a_distance
from graftwork.interfaces.objective import Objective, ObjectiveInputs
from graftwork.nn.adversarial import pool_features, ramp_up
from graftwork.nn.discrepancy import mean_discrepancy
from graftwork.nn.representation import representation_of
from graftwork.training.learner import NeuralLearner

__all__ = ["ARMS", "RECIPE", "FeatureMatching", "derive", "run_arm"]

WORLDS = ("digits", "moons")


class FeatureMatching(Objective):
    """The baseline: the maximum mean discrepancy between representations of labelled and unlabelled rows, ramped up as DANN's strength is.

    Args:
        strength: Highest weight of the term.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength
        self._horizon = 1

    def bind(self, binding: Any) -> None:
        """Take the horizon."""
        self._horizon = binding.facts.horizon

    def loss(self, inputs: ObjectiveInputs) -> Tensor:
        """Return the weighted discrepancy."""
        assert inputs.representation is not None
        features, is_target = pool_features(inputs.representation), inputs.batch.role == UNLABELLED
        return self.strength * ramp_up(inputs.step / self._horizon) * mean_discrepancy(features[~is_target], features[is_target])
