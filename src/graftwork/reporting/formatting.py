"""Numbers as people read them: intervals, percentages, durations, sizes. Every function takes None for "not measured"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = [
    "MISSING",
    "count",
    "duration",
    "file_size",
    "interval",
    "is_number",
    "moment",
    "number",
    "percent",
    "percent_interval",
    "plain_numbers",
    "share",
    "signed_interval",
    "signed_numbers",
    "spans_zero",
]

MISSING = "n/a"
"""What stands where nothing was measured."""

_NO_BREAK = "\u00a0"
"""No line breaks between a number and its percent sign."""


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a finite number (booleans are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _signed(text: str) -> str:
    return text.replace("-", "\u2212")


def number(value: float | None, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits, thousands grouped, and never in exponents between 1e-4 and 1e9.

    Example:
        >>> number(0.81234), number(12345.6), number(None)
        ('0.812', '12,346', 'n/a')
    """
    if not is_number(value):
        return MISSING
    assert value is not None
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-4 or size >= 1e9:
        return _signed(f"{value:.{digits - 1}e}")
    # Digits before the point count as significant ones.
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return _signed(f"{value:,.{decimals}f}")


def percent(value: float | None) -> str:
    """Return a signed percentage with one decimal; changes below 0.05 read as zero without a sign.

    Example:
        >>> percent(3.14), percent(0.01)
        ('+3.1\\xa0%', '0.0\\xa0%')
    """
    if not is_number(value):
        return MISSING
    assert value is not None
    text = f"{value:+,.1f}" if abs(value) < 1000 else f"{value:+,.0f}"
    return _signed(f"{'0.0' if text in ('+0.0', '-0.0') else text}{_NO_BREAK}%")


def share(value: float | None, least: int = 0) -> str:
    """Return a share as a percentage without sign, with ``least`` decimals or more: shares between none and all never read as 0 %
    or 100 %.

    Example:
        >>> share(0.713), share(0.9999), share(0.001), share(1.0)
        ('71\\xa0%', '99.99\\xa0%', '0.1\\xa0%', '100\\xa0%')
    """
    if not is_number(value):
        return MISSING
    assert value is not None
    for decimals in range(least, 3):
        text = f"{100 * value:.{decimals}f}"
        if value in (0, 1) or float(text) not in (0.0, 100.0):
            return f"{text}{_NO_BREAK}%"
    return f"< 0.01{_NO_BREAK}%" if value < 0.5 else f"> 99.99{_NO_BREAK}%"


def _bounds(value: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
    if not isinstance(value, Mapping) or not is_number(value.get("value")):
        return None
    low, high = value.get("low"), value.get("high")
    center = float(value["value"])
    return center, float(low) if is_number(low) else math.nan, float(high) if is_number(high) else math.nan  # type: ignore[arg-type]


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return ``value [low, high]`` of an interval's JSON, with as many decimals as its centre has.

    Example:
        >>> interval({"value": 0.8, "low": 0.75, "high": 0.84}), interval({"value": 26323, "low": 22676, "high": 29877})
        ('0.800 [0.750, 0.840]', '26,323 [22,676 to 29,877]')
    """
    bounds = _bounds(value)
    if bounds is None:
        return MISSING
    center, low, high = bounds
    if math.isnan(low) or math.isnan(high):
        return number(center, digits)
    # A wide interval needs no more decimals than its own width can bear.
    size = max(abs(center), 0.3 * (high - low))
    if size != 0 and (size < 1e-4 or size >= 1e9):
        # All three in exponents: "672,502,421, 2.12e+09" would read as four numbers.
        texts = (_signed(f"{part:.{digits - 1}e}") if part else "0" for part in (center, low, high))
        return "{} [{}, {}]".format(*texts)
    decimals = digits if size == 0 else min(6, max(0, digits - 1 - math.floor(math.log10(size))))
    ends = f"{low:,.{decimals}f}", f"{high:,.{decimals}f}"
    # A comma between numbers with commas in them would be read as one of theirs.
    between = " to " if any("," in end for end in ends) else ", "
    return _signed(f"{center:,.{decimals}f} [{between.join(ends)}]")


def percent_interval(value: Mapping[str, Any] | None) -> str:
    """Return ``+3.1 % [+1.0, +5.2]`` of an interval in percent."""
    bounds = _bounds(value)
    if bounds is None:
        return MISSING
    center, low, high = bounds
    if math.isnan(low) or math.isnan(high):
        return percent(center)
    # Without the percent sign and the space before it.
    return f"{percent(center)} [{percent(low)[:-2]}, {percent(high)[:-2]}]"


def signed_interval(value: Mapping[str, Any] | None) -> str:
    """Return ``+0.52 [+0.31, +0.71]`` of an interval without unit."""
    bounds = _bounds(value)
    if bounds is None:
        return MISSING
    # Two decimals: smaller numbers would read as -0.00.
    center, low, high = (0.0 if abs(part) < 0.005 else part for part in bounds)
    if math.isnan(low) or math.isnan(high):
        return _signed(f"{center:+,.2f}")
    return _signed(f"{center:+,.2f} [{low:+,.2f}, {high:+,.2f}]")


def _decimals(size: float, digits: int) -> int:
    return digits if size == 0 else min(9, max(0, digits - 1 - math.floor(math.log10(size))))


def plain_numbers(*values: float, digits: int = 3) -> tuple[str, ...]:
    """Return numbers that stand beside each other, all with as many decimals as the largest has with ``digits`` digits.

    Example:
        >>> plain_numbers(9.06, 1.6, digits=4), plain_numbers(62.38, 62.9, digits=4)
        (('9.060', '1.600'), ('62.38', '62.90'))
    """
    decimals = _decimals(max(map(abs, values), default=0.0), digits)
    return tuple(f"{value:,.{decimals}f}" for value in values)


def signed_numbers(value: float, low: float, high: float, digits: int = 3) -> tuple[str, str, str]:
    """Return a difference and the ends of its interval with signs, all with the same decimals: no more than the width bears.

    Example:
        >>> signed_numbers(0.0897, -0.116, 0.295), signed_numbers(12.31, 11.5, 13.0)
        (('+0.090', '-0.116', '+0.295'), ('+12.3', '+11.5', '+13.0'))
    """
    width = high - low if math.isfinite(high - low) else 0.0
    decimals = _decimals(max(abs(value), 0.3 * width), digits)
    return f"{value:+,.{decimals}f}", f"{low:+,.{decimals}f}", f"{high:+,.{decimals}f}"


def spans_zero(low: Any, high: Any) -> bool:
    """Return whether the interval contains zero, or is unknown: in both cases nothing is claimed."""
    return not (is_number(low) and is_number(high)) or low <= 0 <= high


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that fits.

    Example:
        >>> duration(0.25), duration(42), duration(312), duration(7500), duration(0.0123), duration(0.0001)
        ('0.25 s', '42 s', '5 min 12 s', '2 h 5 min', '12 ms', 'under 1 ms')
    """
    if not is_number(seconds):
        return MISSING
    assert seconds is not None
    if 0 < seconds < 1e-3:
        return "under 1 ms"
    if 0 < seconds < 0.1:
        return f"{number(1000 * seconds, 2)} ms"
    if seconds < 10:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def moment(text: str | None) -> str:
    """Return a time of ISO 8601 as people write it, to the minute; another text as it is.

    Example:
        >>> moment("2026-11-30T23:40:27+00:00"), moment("2026-11-30T23:40:27+02:00"), moment(None)
        ('2026-11-30 23:40 UTC', '2026-11-30 23:40 UTC+02:00', '')
    """
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return text or ""
    return f"{found:%Y-%m-%d %H:%M} {found.tzname() or ''}".strip()


def count(value: float | None) -> str:
    """Return a count in thousands, millions or billions.

    Example:
        >>> count(950), count(3_371_234), count(0)
        ('950', '3.37 M', 'n/a')
    """
    if not is_number(value) or not value:
        return MISSING
    # Thousands only from ten thousand on: 4,650 reads better than 4.65 k.
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= factor:
            return f"{number(value / (1e3 if unit == 'k' else factor))} {unit}"
    return number(value, 4) if value < 1 else _signed(f"{value:,.0f}")


def file_size(value: float | None) -> str:
    """Return bytes in kB, MB or GB (powers of 1000); zero means not measured."""
    if not is_number(value) or not value:
        return MISSING
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= factor:
            return f"{number(value / factor)} {unit}"
    return f"{number(value)} B"
