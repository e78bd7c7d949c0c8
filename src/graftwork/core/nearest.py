"""The nearest match for a misspelt name. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest_name"]

_CUTOFF = 0.6
"""Least likeness of a name that is offered, from 0 to 1."""


def nearest_name(name: str, options: Iterable[str]) -> str | None:
    """Return the option that looks most like ``name``, or None if none is close.

    Example:
        >>> nearest_name("pirce", ["price", "colour"])
        'price'
    """
    import difflib  # only where a message is made: listing commands start without it

    given = str(name).lower()
    by_lower = {option.lower(): option for option in options}
    # Of two lengths that differ this much no alignment reaches the cutoff; and difflib would index all of a name of megabytes.
    likely = [option for option in by_lower if 2 * min(len(option), len(given)) >= _CUTOFF * (len(option) + len(given))]
    found = difflib.get_close_matches(given, likely, n=1, cutoff=_CUTOFF) if likely else []
    return by_lower[found[0]] if found else None


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"``, or an empty string if nothing is close."""
    nearest = nearest_name(name, options)
    return f" Did you mean {nearest!r}?" if nearest is not None else ""
