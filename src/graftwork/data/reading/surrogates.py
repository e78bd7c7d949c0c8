"""Halves of characters (lone surrogates): JSON can hold them, UTF-8 cannot. They become the replacement character. Standard
library only."""

from __future__ import annotations

from typing import Any

__all__ = ["surrogate_note", "valid_text", "without_lone_surrogates"]


def valid_text(text: str) -> str:
    """Return ``text`` with every lone surrogate replaced.

    Example:
        >>> valid_text("a\\ud800b") == "a\\ufffdb"
        True
    """
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # UTF-16 joins two halves that belong together, and `replace` meets only those that do not.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def without_lone_surrogates(value: Any) -> tuple[Any, int]:
    """Return a JSON value with valid texts only, keys included, and how many of its texts were changed."""
    if isinstance(value, str):
        text = valid_text(value)
        return text, int(text != value)
    if isinstance(value, dict):
        pairs = [(without_lone_surrogates(key), without_lone_surrogates(item)) for key, item in value.items()]
        return {key: item for (key, _), (item, _) in pairs}, sum(first + second for (_, first), (_, second) in pairs)
    if isinstance(value, list):
        parts = [without_lone_surrogates(item) for item in value]
        return [item for item, _ in parts], sum(count for _, count in parts)
    return value, 0


def surrogate_note(count: int) -> str:
    """Return the sentence about ``count`` texts that were changed."""
    which = "1 text holds half a character" if count == 1 else f"{count} texts hold halves of characters"
    return f"{which} (lone surrogates, such as \\ud800); they are replaced by U+FFFD."
