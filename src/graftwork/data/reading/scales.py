"""Words and names that carry an order: what makes a column of words or small whole numbers an ordinal target."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["SCALES", "looks_like_scale_name", "one_spelling", "positive_word", "word_order"]

SCALES: tuple[tuple[str, ...], ...] = (
    ("none", "minimal", "very low", "low", "moderate", "medium", "mid", "high", "very high", "extreme"),
    ("tiny", "extra small", "small", "medium", "large", "extra large", "huge"),
    ("xxs", "xs", "s", "m", "l", "xl", "xxl", "xxxl"),
    ("terrible", "very bad", "bad", "poor", "fair", "average", "ok", "okay", "good", "very good", "great", "excellent"),
    ("poor", "fair", "good", "very good", "premium", "ideal"),
    ("strongly disagree", "disagree", "somewhat disagree", "neutral", "somewhat agree", "agree", "strongly agree"),
    ("very dissatisfied", "dissatisfied", "neutral", "satisfied", "very satisfied"),
    ("never", "rarely", "seldom", "sometimes", "often", "usually", "always"),
    ("none", "mild", "moderate", "severe", "very severe", "critical"),
    ("trivial", "minor", "major", "critical", "blocker"),
    ("beginner", "elementary", "intermediate", "advanced", "expert"),
    ("very negative", "negative", "neutral", "positive", "very positive"),
    ("no", "perhaps", "yes"),
    ("cold", "cool", "mild", "warm", "hot"),
    ("young", "middle-aged", "old"),
    ("first", "second", "third", "fourth", "fifth"),
    ("i", "ii", "iii", "iv", "v", "vi"),
)
"""Known ordered words, lowest first, lower case."""

_SCALE_NAME = re.compile(
    r"(^|[^a-z])(ratings?|stars?|grades?|levels?|scores?|ranks?|severity|stage|quality|satisfaction|likert|priority|difficulty|likelihood)([^a-z]|$)"
)
_POSITIVE = frozenset(
    {
        "yes",
        "y",
        "true",
        "t",
        "1",
        "positive",
        "pos",
        "present",
        "on",
        "pass",
        "passed",
        "success",
        "spam",
        "malignant",
        "case",
        "alive",
    }
)


def _words(value: str) -> str:
    return re.sub(r"[\s_]+", " ", value.strip().lower())


def looks_like_scale_name(name: str) -> bool:
    """Return whether a column name says that its whole numbers are steps of a scale.

    Example:
        >>> looks_like_scale_name("userRating"), looks_like_scale_name("start")
        (True, False)
    """
    # userRating becomes user_Rating.
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return _SCALE_NAME.search(spaced.lower()) is not None


def word_order(values: Iterable[str]) -> list[str] | None:
    """Return the values from lowest to highest if at least three of them are all words of one known scale, else None.

    Example:
        >>> word_order(["High", "Low", "Medium"])
        ['Low', 'Medium', 'High']
    """
    # Two spellings of one word are one level of the scale.
    given = {_words(value): value for value in values}
    if len(given) < 3:
        return None
    # The first scale that holds all words: scales overlap, and earlier ones are the common ones.
    for scale in SCALES:
        if set(given) <= set(scale):
            return [given[word] for word in scale if word in given]
    return None


def one_spelling(values: Iterable[str]) -> dict[str, str]:
    """Return the values with the spelling that :func:`word_order` gives each of them; empty if no word is spelled in two ways, or they
    are no words of a known scale.

    Example:
        >>> one_spelling(["High", "Low", "low", "medium"])
        {'High': 'High', 'Low': 'low', 'low': 'low', 'medium': 'medium'}
    """
    given = list(values)
    order = {_words(value): value for value in word_order(given) or ()}
    return {value: order[_words(value)] for value in given} if 0 < len(order) < len(given) else {}


def positive_word(values: Iterable[str]) -> str | None:
    """Return the one of two values that is the positive class by its word (yes, true, 1, positive ...), or None."""
    found = [value for value in values if _words(value) in _POSITIVE]
    # Both or neither positive: no telling which is meant.
    return found[0] if len(found) == 1 else None
