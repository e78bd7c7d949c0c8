"""TOML of the user's, read so that every fault of the text is one kind of error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

__all__ = ["read_toml"]

_LARGEST = 2**63
"""TOML promises integers of 64 bits; Python reads longer ones, and then refuses to write them into a message."""


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no TOML or no UTF-8, is nested too deeply, or holds an integer beyond 64 bits; the message says which.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # A list, because a recursion could be too deep again.
    waiting: list[Any] = [table]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise ValueError(f"it holds an integer of {value.bit_length():,} bits; 64 are the most")
    return table
