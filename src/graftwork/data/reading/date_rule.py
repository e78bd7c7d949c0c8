"""How the dates of a column are written: the order of day, month and year, and words for a missing cell."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.core.optional import require
from graftwork.data.reading.cells import is_blank, shown_cells
from graftwork.data.reading.number_rule import Reader

__all__ = ["DateRule", "date_notes", "guess_date_rule"]

Floats = NDArray[np.float64]
Order = Literal["ymd", "mdy", "dmy"]

_STRICT_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{3}|\.\d{6})?)?(Z|[+-]\d{2}:\d{2})?)?")
"""What Python's own reader and pandas' read alike."""
_FEW = 8
_ISO = re.compile(r"\d{4}-?\d{2}-?\d{2}([T ].*)?")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)\.?"
)
_TIME = (
    r"(?:(?:[T ]|, )\s*(?P<h>\d{1,2}):(?P<min>\d{2})(?::(?P<s>\d{2}(?:\.\d{1,9})?))?\s*(?P<half>[ap]\.?m\.?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
)
_WRITTEN = re.compile(
    r"(?:(?P<a>\d{1,4})(?P<sep>[-./])(?P<b>\d{1,2})(?P=sep)(?P<c>\d{4}|\d{1,2})"
    rf"|(?P<day>\d{{1,2}})[ -](?P<month>{_MONTH})[ -](?P<year>\d{{4}})"
    rf"|(?P<month2>{_MONTH}) (?P<day2>\d{{1,2}}),? (?P<year2>\d{{4}})){_TIME}",
    re.IGNORECASE,
)
"""A date written for people: ``31.05.2023 14:05``, ``5/31/23 2:05 PM``, ``May 31, 2023``."""
_PERIOD = re.compile(
    r"(?P<year>(?:19|20)\d{2})(?:[-/](?P<m>0[1-9]|1[0-2])|[- ]?Q(?P<q>[1-4]))"
    r"|(?:(?P<m2>0?[1-9]|1[0-2])/|Q(?P<q2>[1-4])[- /]?)(?P<year2>(?:19|20)\d{2})"
    rf"|(?P<month>{_MONTH})[- ](?P<year3>(?:19|20)\d{{2}})",
    re.IGNORECASE,
)
"""A month or a quarter: ``2019-07``, ``07/2019``, ``Jul 2019``, ``2019Q3``. Of other centuries they are codes more often than dates."""
_EPOCH = datetime.datetime(1970, 1, 1)
_LEAST = 0.75
"""Share of the rows that must be dates."""


@dataclass(frozen=True, slots=True)
class DateRule:
    """How the cells of one column are read as dates. Decided once, at training; prediction and serving read with it."""

    order: Order = "ymd"
    """Order of what has no name and no four digits; years in front and months by name are read in any case."""
    is_certain: bool = True
    """Whether a training cell shows the order (a day above 12)."""
    tolerant: bool = False
    """Whether training rows held other words, which count as missing."""
    missing: tuple[str, ...] = ()
    """Words and numbers that the user says mean a missing cell."""

    def read(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """Return seconds since 1970 (NaN where there is no date; zones become UTC), and which texts cannot be read."""
        seconds = _iso_seconds(texts)
        unread = np.isnan(seconds)
        # Levels, not rows, and only those that are not ISO: the slow way is taken seldom.
        for index in np.flatnonzero(unread).tolist():
            if is_blank(texts[index]) or texts[index] in self.missing:
                unread[index] = False
            elif (found := _WRITTEN.fullmatch(texts[index])) is not None and (moment := _moment(found, self.order)) is not None:
                seconds[index], unread[index] = moment, False
            elif (found := _PERIOD.fullmatch(texts[index])) is not None:
                seconds[index], unread[index] = _beginning(found), False
        return seconds, unread

    def state(self) -> dict[str, Any]:
        """Return JSON values."""
        state = {"order": self.order, "is_certain": self.is_certain, "tolerant": self.tolerant}
        return state | ({"missing": list(self.missing)} if self.missing else {})

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Restore from :meth:`state`."""
        return cls(**{**state, "missing": tuple(state.get("missing", ()))})


def _iso_seconds(texts: Sequence[str]) -> Floats:
    if len(texts) <= _FEW and all(
        map(_STRICT_ISO.fullmatch, texts)
    ):  # a request of a server: pandas alone takes longer than the model
        return np.array([_python_seconds(text) for text in texts], dtype=np.float64)
    pandas = require("pandas", extra="data", purpose="Reading tables")
    shaped = [index for index, text in enumerate(texts) if _ISO.fullmatch(text)]
    seconds = np.full(len(texts), np.nan)
    if not shaped:
        return seconds
    cells = pandas.Series([texts[index] for index in shaped], dtype=object)
    dates = pandas.to_datetime(cells, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    known = dates.notna().to_numpy()
    # By milliseconds: pandas' own resolution depends on its version.
    seconds[np.asarray(shaped)[known]] = dates[known].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1000.0
    return seconds


def _python_seconds(text: str) -> float:
    try:
        date = datetime.datetime.fromisoformat(text)
        date = date.astimezone(datetime.UTC).replace(tzinfo=None) if date.tzinfo is not None else date
    except (ValueError, OverflowError):
        return float("nan")
    # Whole milliseconds, cut and not rounded, as the other way does.
    return ((date - _EPOCH) // datetime.timedelta(milliseconds=1)) / 1000.0


def _moment(found: re.Match[str], order: Order) -> float | None:
    """Return the seconds since 1970 of a written date, or None if there is no such day or time."""
    month_name = found["month"] or found["month2"]
    if month_name:
        year, month, day = (
            int(found["year"] or found["year2"]),
            _MONTHS.index(month_name[:3].lower()) + 1,
            int(found["day"] or found["day2"]),
        )
    else:
        parts = [found["a"], found["b"], found["c"]]
        # Four digits in front are a year, whatever the order of the other cells.
        if len(parts[0]) == 4:
            order = "ymd"
        # Without a known order 1.2.2023 cannot be told from 2.1.2023.
        elif order == "ymd" or len(parts[0]) == 3:
            return None
        year, month, day = (int(parts[order.index(key)]) for key in "ymd")
        if len(parts[order.index("y")]) < 4:
            if len(parts[2]) != 2 or (found["sep"] != "/" and any(len(part) != 2 for part in parts)):
                return None  # 1.2.3 is a version
            # POSIX: 69 to 99 are of the 20th century.
            year += 2000 if year < 69 else 1900
    hour, minute, second = int(found["h"] or 0), int(found["min"] or 0), float(found["s"] or 0.0)
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        # 12 AM is 0 and 12 PM is 12.
        hour = hour % 12 + (12 if found["half"][0] in "pP" else 0)
    if hour > 23 or minute > 59 or second >= 60:
        return None
    try:
        date = np.datetime64(f"{year:04d}-{month:02d}-{day:02d}", "D")
    except ValueError:
        return None
    zone = found["zone"] or ""
    offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * 60 * (-1 if zone[0] == "-" else 1) if zone[:1] in ("+", "-") and zone else 0
    seconds = int(date.astype(np.int64)) * 86_400 + hour * 3600 + minute * 60 - offset
    # Cut to milliseconds, as ISO dates are.
    return float(seconds + np.floor(second * 1000.0) / 1000.0)


def _beginning(found: re.Match[str]) -> float:
    """Return the first second of a month or quarter."""
    year = found["year"] or found["year2"] or found["year3"]
    quarter, named = found["q"] or found["q2"], found["month"]
    month = 3 * int(quarter) - 2 if quarter else _MONTHS.index(named[:3].lower()) + 1 if named else int(found["m"] or found["m2"])
    return float(np.datetime64(f"{year}-{month:02d}", "D").astype(np.int64)) * 86_400.0


def guess_date_rule(levels: Sequence[str], counts: NDArray[np.int64], *, read: Reader | None = None) -> DateRule | None:
    """Return the rule by which a column's cells are dates, or None if it is no column of dates.

    At least three quarters of the rows must be dates; words for a missing cell and what cannot be read (``0000-00-00``) are the
    rest.

    Args:
        levels: The different cells, without missing ones.
        counts: Rows of each.
        read: Reads the levels by a rule, and may remember what it read; :meth:`DateRule.read` by default.
    """
    # A quick look first: columns of words are far more common than dates.
    sample = [level for level in levels[:200] if not is_blank(level)]
    shaped = [any(form.fullmatch(level) for form in (_ISO, _WRITTEN, _PERIOD)) for level in sample]
    if not sample or sum(shaped) < _LEAST * len(shaped):
        return None
    rule = _order_rule(levels)
    seconds, unread = read(rule) if read is not None else rule.read(levels)
    if counts[~np.isnan(seconds)].sum() < _LEAST * counts.sum():
        return None
    return replace(rule, tolerant=True) if unread.any() else rule


def _order_rule(levels: Sequence[str]) -> DateRule:
    """Return the order of day and month that fits most cells; where both fit, month first with slashes and day first
    elsewhere."""
    matches = [
        found for level in levels if (found := _WRITTEN.fullmatch(level)) is not None and found["a"] and len(found["a"]) < 3
    ]
    if not matches:
        return DateRule()
    # A number above 12 can only be a day.
    days_first = sum(int(found["a"]) > 12 for found in matches)
    months_first = sum(int(found["b"]) > 12 for found in matches)
    # No proof either way, or as much proof for both.
    if days_first == months_first:
        return DateRule("mdy" if matches[0]["sep"] == "/" else "dmy", is_certain=False)
    return DateRule("dmy" if days_first > months_first else "mdy")


def date_notes(
    name: str, rule: DateRule, example: str, blanks: Sequence[str], num_blank: int, words: Sequence[str], num_words: int
) -> list[str]:
    """Return what there is to say about a column of dates: their order if it is not year, month, day, and cells that are no
    dates.

    The arguments are those of :func:`graftwork.data.reading.number_rule.number_notes`.
    """
    notes = []
    if rule.order != "ymd":
        order = {"mdy": "month, day, year", "dmy": "day, month, year"}[rule.order]
        doubt = "" if rule.is_certain else "; no cell has a day above 12 to tell, so write 2026-01-31 if that is wrong"
        notes.append(f"Column {name!r} holds dates in the order {order} (for example {shown_cells([example])}){doubt}.")
    if num_blank or num_words:
        notes.append(
            f"Column {name!r} holds dates and {num_blank + num_words} cells that are none, such as "
            f"{shown_cells([*words, *blanks])}; they count as missing."
        )
    return notes
