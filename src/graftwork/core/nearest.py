"""The nearest match for a misspelt name. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest_name"]


def nearest_name(name: str, options: Iterable[str]) -> str | None:
    """Return the option that looks most like ``name``, or None if none is close.

    Example:
        >>> nearest_name("pirce", ["price", "colour"])
        'price'
    """
    import difflib  # only where a message is made: listing commands start without it

    by_lower = {option.lower(): option for option in options}
    found = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or an empty string if nothing is close."""
    nearest = nearest_name(name, options)
    return f" Did you mean {nearest!r}?" if nearest is not None else ""
