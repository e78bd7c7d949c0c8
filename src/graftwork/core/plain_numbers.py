"""Numbers in running text, as people write them."""

from __future__ import annotations

__all__ = ["plain_number"]


def plain_number(value: float, digits: int = 4) -> str:
    """Return a number with ``digits`` significant digits (all digits before the point), thousands grouped from 10,000 on (years
    and pages are not), without zeros at its end, and with an exponent only below 1e-4 and from 1e15 on.

    Example:
        >>> plain_number(12345.6), plain_number(0.5), plain_number(120.4, 2), plain_number(23000.0)
        ('12,346', '0.5', '120', '23,000')
    """
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-4 <= size < 1e15:
        return f"{value:.{digits}g}"
    # The exponent after rounding: 9.996 has two digits before the point if it is shown with three.
    exponent = int(f"{size:.{digits - 1}e}".partition("e")[2])
    text = f"{value:{',' if size >= 10_000 else ''}.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
