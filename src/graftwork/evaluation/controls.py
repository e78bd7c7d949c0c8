"""The shuffled-companion control: is a gain of learning together transfer, or only regularisation?

A task that gains from being trained with others may gain because they teach it something, or because any extra loss keeps the
model from overfitting. So the shared plan is trained once more with the companions' training targets shuffled: same losses, same
label statistics, nothing to learn from. Only what beats this control is transfer.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from graftwork.core.seeds import Seeds
from graftwork.data.suite import Suite, labelled_rows

__all__ = ["ControlLabel", "classify_control", "shuffled_companions"]

ControlLabel = Literal["transfer", "regularisation", "gain", "no gain", "harm", "cost", "loss", "unclear"]


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


def classify_control(gain: str, over_control: str, gained: float, control_high: float) -> ControlLabel:
    """Say what a task's result in a shared plan is, from the words for its two comparisons.

    Args:
        gain: Word for the shared plan against separate models.
        over_control: Word for the shared plan against its control with shuffled companions.
        gained: Change of the shared plan against separate models, percent.
        control_high: Upper end of the interval of the change against the control, percent.

    Returns:
        - ``transfer``: better than separate and better than the control.
        - ``regularisation``: better than separate, and the control certainly took part of the gain.
        - ``gain``: better than separate; whether the companions' labels matter is open.
        - ``harm``: worse than separate and worse than the control: the companions' labels hurt.
        - ``cost``: worse than separate, and the control is as bad: the price of sharing, whatever the companions' labels.
        - ``loss``: worse than separate; whether the companions' labels matter is open.
        - ``no gain``: no difference to separate.
        - ``unclear``: the data do not tell.
    """
    up, down = ("better", "probably better"), ("worse", "probably worse")
    if gain in up:
        if over_control in up:
            return "transfer"
        return "regularisation" if over_control in (*down, "no difference") or control_high < gained else "gain"
    if gain in down:
        if over_control in down:
            return "harm"
        return "cost" if over_control in (*up, "no difference") else "loss"
    return "no gain" if gain == "no difference" else "unclear"
