"""How the numbers of a column are written: decimal and thousands signs, currency, percent, durations, and words for a missing
cell."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.errors import ConfigError
from graftwork.data.reading.cells import is_blank, shown_cells
from graftwork.data.reading.missing_words import blank_words

__all__ = ["NumberRule", "Reader", "guess_number_rule", "number_notes", "plain_floats"]

Floats = NDArray[np.float64]

Reader = Callable[[Any], tuple[Floats, NDArray[np.bool_]]]
_SYMBOLS = (
    "$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u20ab\u20b4\u20aa\u20a6\u20b1\u0e3f\u00a2\u20a1\u20b2\u20b5\u20b8\u20bc\u20be"
)
_CODES = [
    "USD",
    "EUR",
    "GBP",
    "JPY",
    "CHF",
    "CAD",
    "AUD",
    "NZD",
    "CNY",
    "INR",
    "SEK",
    "NOK",
    "DKK",
    "PLN",
    "CZK",
    "HUF",
    "BRL",
    "ZAR",
    "MXN",
    "TRY",
    "zł",
    "Kč",
    "%",
    "‰",
]
_UNIT = rf"[A-Z]{{0,2}}[{re.escape(_SYMBOLS)}]|kr\.?|Fr\.?|{'|'.join(_CODES)}"
_WRITTEN = re.compile(
    rf"(?P<open>\()?\s*(?P<sign>[-+\u2212])?\s*(?P<front>{_UNIT})?\s*(?P<inner>[-+\u2212])?"
    r"(?P<body>[.,]?\d(?:[\d.,'\u2019\u00a0\u202f\u2009 ]*\d)?\.?)(?P<exponent>[eE][-+]?\d+)?"
    rf"\s*(?P<back>{_UNIT})?\s*(?P<close>\))?"
)
"""One number written for people: ``-$1,234.50``, ``22.4 %``, ``(1 234,5)``."""
_CLOCK = re.compile(
    r"(?P<sign>[-+])?(?:(?P<days>\d+) days?,? ?)?(?P<inner>[-+])?"
    r"(?:(?P<h>\d+):(?P<m>[0-5]\d)(?::(?P<s>[0-5]?\d(?:\.\d+)?))?(?: ?(?P<half>[ap])\.?m\.?)?)?",
    re.IGNORECASE,
)
"""A duration or a time of day: ``02:13:05``, ``1 days 02:00:00``, ``14:05``, ``2:05 PM``."""
_SPACES = dict.fromkeys(map(ord, "\u00a0\u202f\u2009"), " ") | {ord("\u2019"): "'"}
_GROUPED = {
    ",": r"[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}",  # the second form is the Indian one
    ".": r"[1-9]\d{0,2}(?:\.\d{3})+",
    " ": r"[1-9]\d{0,2}(?: \d{3})+",
    "'": r"[1-9]\d{0,2}(?:'\d{3})+",
}
_SIGNS = {",": "comma", ".": "point", " ": "space", "'": "apostrophe"}
"""Decimal and thousands signs, and what they are called."""
_PAIRS = ((".", ","), (",", "."), (".", " "), (",", " "), (".", "'"), (",", "'"), (",", ""))
_PAIRS_OF_COMMA_FILES = ((",", "."), (",", ""), (",", " "), (",", "'"), (".", ","), (".", " "), (".", "'"))
"""Where decimal commas are likelier (files whose fields are separated by semicolons), they are tried first."""
_INFINITY = re.compile(r"[-+]?inf(?:inity)?", re.IGNORECASE)
_FLAGS = {"true": 1.0, "false": 0.0}
_FEW_WORDS, _FEW_ROWS = 5, 0.02
_FEWEST_NUMBERS = 10


def plain_floats(texts: Sequence[str]) -> Floats:
    """Return texts as numbers, NaN for what Python does not read as one (underscores between digits are refused as well)."""
    # All at once first: one text that is no number sends all of them the slow way.
    try:
        numbers = np.array(list(map(float, texts)), dtype=np.float64)
    except ValueError:
        numbers = np.array(list(map(_float, texts)), dtype=np.float64)
    # Python reads 1_000 as a number; in a table it is more likely a name.
    if "_" in "".join(texts):
        numbers[["_" in text for text in texts]] = np.nan
    return numbers


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True, slots=True)
class NumberRule:
    """How the cells of one column are read as numbers. Decided once, at training; prediction and serving read with it."""

    decimal: str = "."
    thousands: str = ""
    """Sign between groups of digits; empty if there are none."""
    unit: str = ""
    """Currency or percent sign that cells may have in front or behind; it is dropped (``22 %`` is 22)."""
    is_duration: bool = False
    """Whether cells such as ``1 days 02:00:00`` are read as seconds."""
    tolerant: bool = False
    """Whether training rows held other words, which count as missing."""
    missing: tuple[str, ...] = ()
    """Words and numbers that the user says mean a missing cell."""

    def read(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return numbers (NaN where there is none), and which texts cannot be read: neither numbers nor words for a missing
        cell."""
        is_plain = self.decimal == "." and not self.thousands
        numbers = plain_floats(texts) if is_plain else np.full(len(texts), np.nan)
        unread = np.isnan(numbers)
        # Levels, not rows, and only those that Python cannot read.
        for index in np.flatnonzero(unread).tolist():
            text = texts[index]
            if is_blank(text) or text in self.missing:
                unread[index] = False
                continue
            number = _FLAGS.get(text.lower())
            if number is None:
                number = self._read_written(text)
            if number is not None:
                numbers[index], unread[index] = number, False
        return blank_words(numbers, self.missing), unread

    def _read_written(self, text: str) -> float | None:
        if self.is_duration:
            return _seconds(text)
        found = _WRITTEN.fullmatch(text)
        # Infinity is a number to Python, however it is written.
        if found is None or not _fits(found, self.unit):
            return float(text) if _INFINITY.fullmatch(text) else None
        body = found["body"].translate(_SPACES)
        if not _body_pattern(self.decimal, self.thousands).fullmatch(body):
            return None
        digits = body.replace(self.thousands, "") if self.thousands else body
        number = float(digits.replace(self.decimal, ".") + (found["exponent"] or ""))
        signs = [found["sign"], found["inner"], "-" if found["open"] else None]
        # An odd number of minus signs; brackets are one in accounts.
        return -number if sum(sign in ("-", "\u2212") for sign in signs) % 2 else number

    @property
    def is_plain(self) -> bool:
        """Whether numbers are written as programs write them."""
        return self.decimal == "." and not self.thousands and not self.unit and not self.is_duration

    def in_words(self) -> str:
        """Return how numbers are written, for notes; empty if :attr:`is_plain`."""
        if self.is_duration:
            return "as times or durations, in seconds"
        parts = [f"with {self.unit}"] if self.unit else []
        parts += [f"with {_SIGNS[self.thousands]}s between thousands"] if self.thousands else []
        parts += [f"with a decimal {_SIGNS[self.decimal]}"] if self.decimal != "." else []
        return " and ".join(parts)

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "decimal": self.decimal,
            "thousands": self.thousands,
            "unit": self.unit,
            "is_duration": self.is_duration,
            "tolerant": self.tolerant,
            **({"missing": list(self.missing)} if self.missing else {}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`.

        Raises:
            ConfigError: If a sign is none of those that numbers are read with.
        """
        rule = cls(**{**state, "missing": tuple(state.get("missing", ()))})
        for key, sign, known in (("decimal", rule.decimal, ".,"), ("thousands", rule.thousands, ("", *_SIGNS))):
            if sign not in tuple(known):
                raise ConfigError(f"{key} of a column of numbers is {sign!r:.40}; expected one of {', '.join(map(repr, known))}.")
        return rule


def _fits(found: re.Match[str], unit: str) -> bool:
    """Return whether brackets close and a unit, if there is one, is the column's."""
    units = [part for part in (found["front"], found["back"]) if part]
    signs = [part for part in (found["sign"], found["inner"]) if part]
    return (
        bool(found["open"]) == bool(found["close"])
        and len(units) <= 1
        and len(signs) <= 1
        and all(part == unit for part in units)
    )


@lru_cache
def _body_pattern(decimal: str, thousands: str) -> re.Pattern[str]:
    # Plain digits are fine too: 950 has no thousands to separate.
    groups = f"{_GROUPED[thousands]}|" if thousands else ""
    point = re.escape(decimal)
    return re.compile(rf"(?:(?:{groups}\d+)(?:{point}\d*)?|{point}\d+)")


def _seconds(text: str) -> float | None:
    found = _CLOCK.fullmatch(text)
    if found is None or (found["days"] is None and found["h"] is None):
        return None
    hours = int(found["h"] or 0)
    if found["half"]:
        if not 1 <= hours <= 12:
            return None
        # 12 AM is 0 and 12 PM is 12.
        hours = hours % 12 + (12 if found["half"] in "pP" else 0)
    clock = 0.0 if found["h"] is None else hours * 3600 + int(found["m"]) * 60 + float(found["s"] or 0.0)
    clock = -clock if found["inner"] == "-" else clock
    # pandas writes minus ten seconds as `-1 days +23:59:50`: the sign belongs to the days alone.
    seconds = int(found["days"] or 0) * 86_400 * (-1 if found["sign"] == "-" and found["days"] else 1) + clock
    return -seconds if found["sign"] == "-" and not found["days"] else seconds


def guess_number_rule(
    levels: Sequence[str], counts: NDArray[np.int64], *, decimal: str = ".", read: Reader | None = None
) -> NumberRule | None:
    """Return the rule by which a column's cells are numbers, or None if it is a column of words.

    A column is one of numbers if all of its cells are, but for words such as ``?`` and ``unknown`` in at most half of them, and
    for up to five other words without a digit in at most 2 % of them, if there are ten different numbers or more.

    Args:
        levels: The different cells, without missing ones.
        counts: Rows of each.
        decimal: The decimal sign that is likelier where both readings are possible (``1,250``).
        read: Reads the levels by a rule, and may remember what it read; :meth:`NumberRule.read` by default.
    """
    if not levels:
        return None
    # Only true and false: numbers 1 and 0.
    if all(level.lower() in _FLAGS for level in levels):
        return NumberRule()
    unread_levels = None
    for rule in _candidates(levels, decimal):
        numbers, unread = read(rule) if read is not None else rule.read(levels)
        # Strictly fewer: of rules that read alike the earlier, simpler one stays.
        if unread_levels is None or unread.sum() < unread_levels:
            best, unread_levels, known = rule, int(unread.sum()), ~np.isnan(numbers)
            lost = unread
        if not unread_levels:
            break
    # The first letter is a quick look before the whole text is lowered.
    flags = np.array([level[0] in "tTfF" and level.lower() in _FLAGS for level in levels])
    # Numbers and true or false in one column are no numbers.
    if not known.any() or (flags & known).any():
        return None
    blank = ~known & ~lost
    if (
        blank.any()
        and counts[known].sum() < counts[blank].sum()
        and any(_is_word(level) for level, is_one in zip(levels, blank.tolist(), strict=True) if is_one)
    ):
        return None
    if not lost.any():
        return best
    words = [levels[index] for index in np.flatnonzero(lost).tolist()]
    few = len(words) <= _FEW_WORDS and counts[lost].sum() <= _FEW_ROWS * counts.sum() and known.sum() >= _FEWEST_NUMBERS
    # Words with a digit are codes or numbers that are written badly; neither may be lost in silence.
    if not few or any(letter.isdigit() for word in words for letter in word):
        return None
    return replace(best, tolerant=True)


def _is_word(text: str) -> bool:
    """Return whether a blank word could well be a value: what pandas itself writes for missing cells could not."""
    return text not in ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "NULL", "null", "None", "<NA>", "#N/A", "#NA", "NaT")


def _candidates(levels: Sequence[str], decimal: str) -> Iterator[NumberRule]:
    """Yield the rules worth trying, the plain one first, by what the first 500 cells look like."""
    # Numbers as programs write them are the usual case, and reading them is quicker than looking at how they are written.
    yield NumberRule()
    sample = [level for level in levels[:500] if not is_blank(level)]
    found = [match for match in map(_WRITTEN.fullmatch, sample) if match is not None]
    clocks = sum(_seconds(text) is not None for text in sample)
    if clocks > 0.5 * len(sample):
        # A few cells such as 12:30 are as good as names; of many the order counts.
        if len(sample) >= _FEWEST_NUMBERS or any(text.count(":") != 1 for text in sample):
            yield NumberRule(is_duration=True)
        return
    # Mostly words: no way of writing numbers will make it a column of numbers.
    if len(found) < 0.5 * len(sample):
        return
    units = {part for match in found for part in (match["front"], match["back"]) if part}
    # Dollars and euros in one column cannot be compared.
    if len(units) > 1:
        return
    unit = next(iter(units), "")
    yield NumberRule(unit=unit)
    pairs = _PAIRS_OF_COMMA_FILES if decimal == "," else _PAIRS
    for point, group in pairs:
        yield NumberRule(point, group, unit)


def number_notes(
    name: str, rule: NumberRule, example: str, blanks: Sequence[str], num_blank: int, words: Sequence[str], num_words: int
) -> list[str]:
    """Return what there is to say about a column of numbers: how they are written, and the words among them.

    Args:
        name: The column.
        rule: How it is read.
        example: A cell that is not written as programs write numbers.
        blanks: Words that usually stand for a missing cell.
        num_blank: Rows that hold one.
        words: Other words.
        num_words: Rows that hold one.
    """
    notes = []
    if not rule.is_plain:
        notes.append(
            f"Column {name!r} holds numbers written {rule.in_words()} (for example {shown_cells([example])}); they are read as "
            f"numbers."
        )
    if num_blank or num_words:
        both = [*words, *blanks]
        notes.append(
            f"Column {name!r} holds numbers and words: {num_blank + num_words} cells such as {shown_cells(both)} count as "
            f"missing."
        )
    return notes
