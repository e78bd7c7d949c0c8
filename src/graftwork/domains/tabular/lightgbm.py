"""LightGBM, one model per target: the strong non-neural baseline for tables (Ke et al. 2017, https://lightgbm.readthedocs.io).

Shares nothing between tasks. A step is a boosting round of every target that still gains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from graftwork.domains.tabular.boosted_learner import BoostedLearner, design_matrix
from graftwork.domains.tabular.boosting import Booster, BoosterData
from graftwork.interfaces.learner import LearnerContext

__all__ = ["LightGBMLearner", "design_matrix"]

Array = NDArray[Any]
WIDE, WIDE_BINS = 2000, 63
"""Columns from which on a column has so many bins in place of 255: histograms of 5,000 columns take gigabytes otherwise."""
MOST_KEPT = 10_000_000
"""Cells of the training rows up to which a learner may stay in memory between two jobs."""


class LightGBMLearner(BoostedLearner):
    """Boosted trees for every target, every value of a vector target and every label of a multi-label target.

    Args:
        context: A table suite; ``max_steps`` is the most rounds. Overrides of the training loop do not apply to trees.
        learning_rate: Shrinkage of each tree, in (0, 1].
        num_leaves: Most leaves of a tree, at least 2.
        l2: Penalty on leaf values, at least 0.
        patience: Rounds without gain on the validation rows after which a target stops.

    Raises:
        MissingDependencyError: If LightGBM is not installed.
        DataError: If the suite is no table, or a task is not made of classes or numbers, or has no training label.
    """

    words = "LightGBM"
    slug = "lightgbm"
    suffix = "txt"

    def __init__(
        self, context: LearnerContext, *, learning_rate: float = 0.05, num_leaves: int = 31, l2: float = 1.0, patience: int = 50
    ) -> None:
        suite = context.suite
        self._params = {
            "learning_rate": learning_rate,
            "num_leaves": num_leaves,
            "lambda_l2": l2,
            "deterministic": True,
            # LightGBM would otherwise time both ways and choose, and sums differ in their last digits.
            "force_row_wise": True,
            "num_threads": context.threads,
            # LightGBM takes 32-bit integers.
            "seed": context.seed % 2**31,
        }
        numeric = suite.inputs["numeric"].shape[1] if "numeric" in suite.inputs else 0
        codes = suite.inputs["categorical"].shape[1] if "categorical" in suite.inputs else 0
        self._categorical = range(numeric, numeric + codes)
        self._columns = numeric + codes
        if self._columns > WIDE:
            self._params["max_bin"] = WIDE_BINS
        super().__init__(context, patience=patience)

    @property
    def ignores_horizon(self) -> bool:
        """Rounds do not depend on how many follow."""
        return True

    @property
    def slow_to_load(self) -> bool:
        """LightGBM predicts all training rows by the old trees before it goes on, which takes as long as growing them. Large tables
        are not kept in memory for that."""
        return len(self.context.suite.splits["train"]) * self._columns <= MOST_KEPT

    def booster(self, data: BoosterData, objective: str, num_classes: int) -> Booster:
        """Return an untrained booster."""
        return Booster(data, objective, num_classes, self._params, patience=self._patience)

    @property
    def categorical(self) -> Sequence[int]:
        """Columns that hold category codes."""
        return self._categorical
