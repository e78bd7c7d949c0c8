"""Baselines of tables whose rows are grouped or ordered in time: like the constant, they do not look at the columns.

Rows to predict are of other groups and of later times than those that were learned from, so neither can look its own group or its own
last label up. What can be known of them is the mean over the groups, each of which counts once however many rows it has, and the last
value that was seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import DataError
from graftwork.data.splits import TIMES
from graftwork.domains.tabular.constant import ConstantLearner
from graftwork.domains.tabular.label_blocks import LabelBlock
from graftwork.interfaces.learner import LearnerContext

__all__ = ["GroupMeanLearner", "LastValueLearner"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


class GroupMeanLearner(ConstantLearner):
    """The mean over the groups of each group's mean (numbers), or of its shares (classes); of medians where the metric is the mean
    absolute error.

    Args:
        context: A suite whose rows have groups, on any input. Tasks that are neither numbers nor classes get the constant's answer.

    Raises:
        DataError: If the rows have no groups, or a task has no training label.
    """

    words = "mean over groups"
    slug = "group-mean"

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        if context.suite.groups is None:
            raise DataError(
                f"The rows of the suite {context.suite.name!r} have no groups. Name a column with --group, or leave the plan out."
            )

    def center(self, block: LabelBlock, rows: Rows) -> Floats:
        """Return the answer for a label column ``[width]``."""
        assert self.context.suite.groups is not None, "checked at the start"
        known = block.labelled(rows)
        targets = block.targets(known)
        _, place = np.unique(self.context.suite.groups[known], return_inverse=True)
        place = place.reshape(-1)
        if block.is_number and block.task.metric == "mae":
            return np.median([np.median(targets[place == group], axis=0) for group in range(place.max() + 1)], axis=0)
        sums = np.zeros((place.max() + 1, targets.shape[1]))
        np.add.at(sums, place, targets)
        return np.asarray((sums / np.bincount(place)[:, None]).mean(axis=0))


class LastValueLearner(ConstantLearner):
    """The last value before the rows to predict: the mean of the latest labelled training rows, all of one time.

    Probabilities of classes are moved towards the shares among the training rows, as much as one row weighs.

    Args:
        context: A suite that was divided by time, on any input. Tasks that are neither numbers nor classes get the constant's answer.

    Raises:
        DataError: If the suite holds no times, or a task has no training label.
    """

    words = "last value"
    slug = "last-value"

    def __init__(self, context: LearnerContext) -> None:
        super().__init__(context)
        if TIMES not in context.suite.raw:
            raise DataError(
                f"The suite {context.suite.name!r} is not divided by time. Name a column with --time, or leave the plan out."
            )

    def center(self, block: LabelBlock, rows: Rows) -> Floats:
        """Return the answer for a label column ``[width]``."""
        known = block.labelled(rows)
        times = np.asarray(self.context.suite.raw[TIMES])[known]
        last = block.targets(known[times == times.max()])
        found = last.mean(axis=0)
        if block.is_number:
            return np.asarray(found)
        weight = 1.0 / (len(last) + 1.0)
        return np.asarray((1.0 - weight) * found + weight * block.shares(rows))
