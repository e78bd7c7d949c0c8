"""The shuffled-companion control: is a gain of learning together transfer, or only regularisation?

A task that gains from being trained with others may gain because they teach it something, or because any extra loss keeps the
model from overfitting. So the shared plan is trained once more with the companions' training targets shuffled: same losses, same
label statistics, nothing to learn from. Only what beats this control is transfer.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from graftwork.core.records import Interval
from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["ControlLabel", "classify_control", "shuffled_companions"]

ControlLabel = Literal["transfer", "regularisation", "no gain", "harm", "unclear"]

MINIMAL_EFFECT = 0.5
"""Percent; smaller changes count as none."""
NARROW = 2.0
"""Percent; an interval around zero that ends below this rules a gain out, a wider one leaves it open."""


def shuffled_companions(suite: Suite, keep: str, seed: int) -> Suite:
    """Return the suite with the training targets of all tasks but ``keep`` shuffled.

    Whole targets move among the training rows that have a label of the task, each task by its own permutation: missing rows stay
    missing, label frequencies stay the same, validation, test and all other rows are untouched. Resplit before, not after, this
    call.

    Args:
        suite: The suite.
        keep: Name of the task whose targets stay.
        seed: Root seed; each companion draws from its own stream.

    Raises:
        DataError: If there is no task ``keep``.
    """
    suite.task(keep)
    train = suite.splits["train"]
    shuffled = {}
    for name in suite.task_names:
        if name == keep:
            continue
        target = np.array(suite.targets[name])
        # Only labelled rows change places, so that the pattern of missing labels stays.
        rows = train[labelled_rows(target[train])]
        # A stream for each name: another companion in the suite must not change this one's order.
        target[rows] = target[Seeds(seed).numpy(f"shuffled-companions/{name}").permutation(rows)]
        shuffled[name] = target
    return suite.with_targets(shuffled)


def classify_control(gain: Interval, over_control: Interval, *, minimal_effect: float = MINIMAL_EFFECT) -> ControlLabel:
    """Say what a task's result in a shared plan is.

    Args:
        gain: Change of the shared plan against separate models, percent, positive is better.
        over_control: Change of the shared plan against its control with shuffled companions, percent.
        minimal_effect: Percent; smaller changes count as none.

    Returns:
        - ``harm``: worse than separate.
        - ``transfer``: better than separate and better than the control.
        - ``regularisation``: better than separate, but the control is, too, or nothing suggests that the companions' labels
          matter.
        - ``no gain``: not better than separate, and a gain of more than 2 % is ruled out.
        - ``unclear``: the intervals are too wide to tell.
    """
    # One seed or too few rows: there is no interval to judge by.
    if not all(map(np.isfinite, (gain.low, gain.high))):
        return "unclear"
    # Sure to be worse, but by less than matters, is no harm.
    if gain.high < 0:
        return "harm" if gain.value <= -minimal_effect else "no gain"
    # A narrow interval around zero is an answer; a wide one is none.
    if gain.low <= 0 or gain.value < minimal_effect:
        return "no gain" if gain.high <= NARROW else "unclear"
    if not all(map(np.isfinite, (over_control.low, over_control.high))):
        return "unclear"
    if over_control.low > 0 and over_control.value >= minimal_effect:
        return "transfer"
    # The control took part of the gain for sure (its own lead over separate excludes zero), or there is no sign of more than
    # that.
    if over_control.high < gain.value or over_control.value < minimal_effect:
        return "regularisation"
    return "unclear"
