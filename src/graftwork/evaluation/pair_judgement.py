"""Which measured affinities count: those that hold for all pairs together, and that shuffled companions do not show as well.

Measurements of one training repeat each other: any two networks that share weights pull at each other steadily, related or not,
so that intervals over measurements alone call nearly every pair sure. What is judged here therefore needs two witnesses: the
pair's own measurements, corrected for the number of pairs (Holm), and the control of the task that is said to be helped or hurt,
trained with the labels of its companions shuffled. Without controls nothing is said of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from graftwork.core.optional import require
from graftwork.evaluation.paired import holm
from graftwork.interfaces.metric import Floats

__all__ = ["PairWord", "judge_pairs", "judged_tasks", "pair_p_values"]

PairWord = Literal["helps", "hurts", "unclear", ""]
ALPHA = 0.05
_EFFECTS = {"transfer": 1, "harm": -1}


def judged_tasks(controls: Mapping[str, str] | None) -> dict[str, int]:
    """Return the tasks that others help (1) or hurt (-1) by the control with shuffled companions.

    Args:
        controls: ``{task: label}`` from :func:`graftwork.evaluation.controls.classify_control`; None if no control was made.
    """
    return {task: _EFFECTS[label] for task, label in (controls or {}).items() if label in _EFFECTS}


def pair_p_values(affinity: Mapping[str, Any]) -> Floats:
    """Return the two-sided p-values of "no effect" ``[T, T]``, adjusted for the number of pairs; NaN on the diagonal and where
    nothing is known.

    Args:
        affinity: From :func:`graftwork.evaluation.affinity.summarise_affinity`.
    """
    value, low, high = (_table(affinity[key]) for key in ("value", "low", "high"))
    count = int(affinity.get("measurements", 0))
    if count < 2:
        return np.full(value.shape, np.nan)
    student = require("scipy.stats", extra="train", purpose="The p-values of affinities").t
    # From the half width of the 95 % interval back to the standard error.
    error = (high - low) / 2 / float(student.ppf(0.975, count - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = 2 * student.sf(np.abs(value) / error, count - 1)
    found = np.where(np.isfinite(value) & (error > 0), found, np.nan)
    np.fill_diagonal(found, np.nan)
    return holm(found.reshape(-1)).reshape(found.shape)


def judge_pairs(affinity: Mapping[str, Any], controls: Mapping[str, str] | None) -> list[list[PairWord]]:
    """Return what may be said of each pair: row = who is trained along, column = whom it helps or hurts.

    Args:
        affinity: From :func:`graftwork.evaluation.affinity.summarise_affinity`.
        controls: ``{task: label}`` of the tasks with a control; None if no control was made.

    Returns:
        ``helps`` or ``hurts`` where both witnesses agree, ``unclear`` elsewhere, empty on the diagonal.
    """
    names, value = list(affinity["tasks"]), _table(affinity["value"])
    p_values, effects = pair_p_values(affinity), judged_tasks(controls)

    def word(row: int, column: int) -> PairWord:
        if row == column:
            return ""
        sign = effects.get(names[column], 0)
        # NaN is below nothing.
        if not sign or not p_values[row, column] < ALPHA or value[row, column] * sign <= 0:
            return "unclear"
        return "helps" if sign > 0 else "hurts"

    return [[word(row, column) for column in range(len(names))] for row in range(len(names))]


def _table(rows: Any) -> Floats:
    return np.array([[np.nan if cell is None else cell for cell in row] for row in rows], dtype=np.float64)
