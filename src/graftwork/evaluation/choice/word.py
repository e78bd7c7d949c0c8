"""The one word for a comparison: tables, heat maps, controls and sentences all take it from here, so that they cannot differ.

A word other than ``unclear`` follows from an interval that covers test rows and seeds (or folds) together, and from a p-value
that is adjusted for the number of comparisons which a reader sees side by side. If nothing differs, ``probably`` and stronger
words are therefore rare in the whole table, not only in each cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

__all__ = [
    "ALPHA",
    "MINIMAL_EFFECT",
    "NARROW",
    "NEGATIVE",
    "POSITIVE",
    "PROBABLE_ALPHA",
    "Evidence",
    "Word",
    "is_narrow",
    "word_of",
    "word_of_row",
]

Word = Literal["better", "probably better", "no difference", "unclear", "probably worse", "worse"]
Evidence = Literal["enough", "some", "none"]
"""How much the data may carry: assertions, ``probably`` at most, or no statement."""

MINIMAL_EFFECT = 0.5
"""Percent; smaller changes do not matter to anybody and count as none."""
NARROW = 2.0
"""Percent; an interval around zero that stays below this shows that there is no difference, a wider one leaves it open."""
ALPHA = 0.03
"""Adjusted p-value below which a difference is asserted."""
PROBABLE_ALPHA = 0.05
"""Adjusted p-value below which it is probable: where nothing differs, at most one comparison in twenty gets that far."""
POSITIVE: tuple[Word, ...] = ("better", "probably better")
NEGATIVE: tuple[Word, ...] = ("worse", "probably worse")


def word_of(value: float, low: float, high: float, p_value: float, evidence: Evidence) -> Word:
    """Return the word for a change in percent.

    Args:
        value: The change, positive is better.
        low: Lower end of its 95 % interval over rows and seeds.
        high: Upper end.
        p_value: Of "no change", adjusted for the number of comparisons side by side.
        evidence: What the numbers of rows, groups and seeds allow to say.

    Returns:
        - ``better``, ``worse``: the interval excludes zero, the p-value is below 0.03, there is enough evidence.
        - ``probably better``, ``probably worse``: the interval excludes zero and the p-value is below 0.05, or
          below 0.03 with ``some`` evidence only.
        - ``no difference``: the interval shows that the change is too small to matter, and there is enough evidence.
        - ``unclear``: everything else, whatever is unknown included.

    Example:
        >>> word_of(3.0, 1.0, 5.0, 0.01, "enough"), word_of(3.0, 1.0, 5.0, 0.01, "some"), word_of(3.0, -1.0, 7.0, 0.3, "enough")
        ('better', 'probably better', 'unclear')
    """
    if evidence == "none" or not np.isfinite([value, low, high]).all():
        return "unclear"
    if is_narrow(low, high) and abs(value) <= NARROW and (low <= 0 <= high or abs(value) < MINIMAL_EFFECT):
        # Two models often decide a few dozen rows alike: no resampling of those shows how many other rows they would not.
        return "no difference" if evidence == "enough" else "unclear"
    # A value outside of its own interval (a skewed bootstrap) has no sign to speak of. NaN is below nothing.
    sure = (low > 0 and value > 0) or (high < 0 and value < 0)
    # Few rows make metrics skewed, and p-values with them.
    limit = PROBABLE_ALPHA if evidence == "enough" else ALPHA
    if not sure or abs(value) < MINIMAL_EFFECT or not p_value < limit:
        return "unclear"
    if p_value < ALPHA and evidence == "enough":
        return "better" if value > 0 else "worse"
    return "probably better" if value > 0 else "probably worse"


def is_narrow(low: float, high: float) -> bool:
    """Return whether an interval in percent stays so near to zero that it would show no difference; NaN does not."""
    return max(abs(low), abs(high)) <= NARROW


def word_of_row(row: Mapping[str, Any]) -> Word:
    """Return the word for a row of ``result.json`` with ``difference``, ``p_value`` and ``evidence``."""
    ends = [_number(row["difference"].get(key)) for key in ("value", "low", "high")]
    return word_of(ends[0], ends[1], ends[2], _number(row.get("p_value")), row["evidence"])


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
