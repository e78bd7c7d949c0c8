"""Quantities as people write them: ``6m``, ``20ms``, ``5M`` parameters, ``2GB``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graftwork.core.errors import ConfigError

__all__ = ["format_bytes", "format_count", "format_seconds", "parse_bytes", "parse_count", "parse_milliseconds", "parse_seconds"]

_SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
# `m` is a million here and a minute above: what is asked for decides.
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_BYTES = {"b": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "k": 1e3, "m": 1e6, "g": 1e9}
_PART = r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([a-z]+)"
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def _parse(value: float | str, units: dict[str, float], plain: str, what: str, examples: str) -> float:
    """Return ``value`` in the base unit; a bare number is taken to be in the unit ``plain``."""
    error = ConfigError(f"{what} looks like {examples}; got {value!r}.")
    # `true` is an integer to Python, and surely a mistake here.
    if isinstance(value, bool):
        raise error
    if isinstance(value, (int, float)):
        try:
            number = float(value) * units[plain]
        except OverflowError:  # an integer of hundreds of digits
            raise error from None
    elif "h" in units and re.fullmatch(rf"\s*(?:{_PART}\s*){{2,}}", value, re.IGNORECASE):
        # Only times are written in several units, as in `1h30m`.
        parts = re.findall(_PART, value.lower())
        if any(unit not in units for _, unit in parts):
            raise error
        number = sum(float(amount) * units[unit] for amount, unit in parts)
    else:
        match = _NUMBER.fullmatch(value)
        unit = (match.group(2).lower() or plain) if match else ""
        if match is None or unit not in units:
            raise error
        number = float(match.group(1)) * units[unit]
    # NaN fails this comparison, too.
    if not 0 < number < float("inf"):
        raise error
    return number


def parse_seconds(value: float | str) -> float:
    """Return seconds; a bare number means seconds.

    Example:
        >>> parse_seconds("6m"), parse_seconds("1h30m"), parse_seconds(45)
        (360.0, 5400.0, 45.0)
    """
    return _parse(value, _SECONDS, "s", "A time", "'90s', '6m', '1h30m' or a number of seconds")


def parse_milliseconds(value: float | str) -> float:
    """Return milliseconds; a bare number means milliseconds."""
    return 1000 * _parse(value, _SECONDS, "ms", "A latency", "'20ms', '0.5s' or a number of milliseconds")


def parse_count(value: float | str) -> int:
    """Return a whole number; ``k``, ``M`` and ``B`` are understood."""
    return round(_parse(value, _COUNTS, "", "A number of parameters", "'5M', '800k' or a whole number"))


def parse_bytes(value: float | str) -> int:
    """Return bytes; a bare number means bytes."""
    return round(_parse(value, _BYTES, "b", "A memory size", "'2GB', '512MiB' or a number of bytes"))


def format_seconds(seconds: float) -> str:
    """Return a short text.

    Example:
        >>> format_seconds(4.2), format_seconds(75), format_seconds(3725)
        ('4.2 s', '1 min 15 s', '1 h 02 min')
    """
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_count(number: float) -> str:
    """Return a number with ``k``, ``M`` or ``B``.

    Example:
        >>> format_count(4_650_000), format_count(812)
        ('4.65 M', '812')
    """
    return _in_units(number, ((1e9, " B"), (1e6, " M"), (1e3, " k"))) or f"{number:.0f}"


def format_bytes(number: float) -> str:
    """Return bytes as MB or GB.

    Example:
        >>> format_bytes(2_500_000_000)
        '2.5 GB'
    """
    return _in_units(number, ((1e9, " GB"),)) or f"{number / 1e6:.3g} MB"


def _in_units(number: float, units: Sequence[tuple[float, str]]) -> str:
    """Return a number of three digits in the first unit of which there is at least one once it is rounded; empty if there is
    none."""
    for size, suffix in units:
        amount = number / size
        if float(f"{amount:.3g}") >= 1:
            # More than three digits before the point are written out: `1e+03` is nothing that people write.
            return (f"{amount:.3g}" if amount < 999.5 else f"{amount:.0f}") + suffix
    return ""
