"""What every rule for reading verdicts needs: patterns of names and numbers, and the comparisons of words with rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
NAME, CHANGE = r"`([^`]+)`", r"([+-]?[\d,.]+) %"
INTERVAL = CHANGE + r"(?: \(95 % interval (-?[\d,.]+) to (-?[\d,.]+)\))?"
MEAN = r"(?: on average over the tasks(?:, weighted as asked)?)?"
SIGNS = {"better": 1, "probably better": 1, "worse": -1, "probably worse": -1, "helps": 1, "probably helps": 1, "hurts": -1}
SIGNS |= {"probably hurts": -1}
WORDS = r"((?:probably )?(?:better|worse))"


class ContradictionError(AssertionError):
    """A sentence says something else than the result, or than another sentence."""


def need(holds: bool, sentence: str, why: str) -> None:
    if not holds:
        raise ContradictionError(f"{why}: {sentence}")


def same(text: str | None, value: float | None, places: int = 1) -> bool:
    """Whether a printed number is the rounded value."""
    if text is None or value is None:
        return text is None and value is None
    number = float(text.replace(",", ""))
    digits = 0 if "." not in text else places
    return abs(number - value) <= 0.5 * 10**-digits + 1e-6 * max(1.0, abs(value))


def check_interval(sentence: str, groups: tuple[str | None, ...], row: Mapping[str, Any]) -> None:
    value, low, high = groups
    difference = row["difference"]
    need(same(value, difference["value"]), sentence, f"{value} % is not {difference['value']}")
    if low is None:
        need(difference["low"] is None or difference["high"] is None, sentence, "an interval is kept back")
    else:
        need(same(low, difference["low"]) and same(high, difference["high"]), sentence, f"not the interval of {difference}")


def check_word(sentence: str, word: str, row: Mapping[str, Any]) -> None:
    """A word must be the row's, have its sign, and its interval on that side."""
    need(row["label"] == word, sentence, f"{word!r} is called {row['label']!r} elsewhere")
    ends = row["difference"]
    sign = SIGNS[word]
    need(sign * ends["value"] > 0 and sign * ends["low"] > 0 and sign * ends["high"] > 0, sentence, f"{word!r} with {ends}")
    need(row["evidence"] != "none", sentence, "said from too few rows or seeds")
    need(word.startswith("probably") or row["evidence"] == "enough", sentence, "asserted from too little")
