"""What a server refuses: an HTTP status and, for every fault, the field, the value and what is allowed. Standard library only."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from graftwork.core.nearest import did_you_mean

__all__ = ["MOST_PROBLEMS", "Problem", "RequestError", "hint", "shown"]

MOST_PROBLEMS = 20
"""Faults that one answer lists."""
_MOST_COMPARED = 200

_LONGEST = 120
"""Characters of a value that an answer repeats."""
_LONGEST_FIELD = 1_000
"""Characters of a path: the names of columns in it are the client's, and may be as long as the request."""
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST
_SHORT.maxlevel = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a request."""

    field: str
    """Where it is, as a path: ``rows[3].age``; empty for the request as a whole."""
    value: Any
    """What was given, cut short; None if nothing was."""
    allowed: str
    """What would be right."""

    def json(self) -> dict[str, Any]:
        """Return the JSON form."""
        field = self.field if len(self.field) <= _LONGEST_FIELD else self.field[: _LONGEST_FIELD - 3] + "..."
        return {"field": field, "value": shown(self.value), "allowed": self.allowed}


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status, from 400 to 599.
        message: One sentence for people.
        problems: The faults, all that were found.
        retry_after: Seconds after which asking again makes sense.
    """

    def __init__(self, status: int, message: str, *problems: Problem, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.problems = problems
        self.retry_after = retry_after

    def json(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": self.message, "problems": [problem.json() for problem in self.problems]}


def hint(name: str, options: Iterable[str], problems: Sequence[Problem]) -> str:
    """Return which option a name looks like, as :func:`~graftwork.core.nearest.did_you_mean` says it.

    Args:
        name: What was given, or what is missing.
        options: Names to choose from. A request may hold a hundred thousand of them; only the first few hundred are compared.
        problems: Faults found so far: where the answer is full already, nothing is compared.
    """
    return did_you_mean(name, islice(options, _MOST_COMPARED)) if len(problems) < MOST_PROBLEMS else ""


def shown(value: Any) -> Any:
    """Return a value as an answer repeats it: short, and JSON whatever it is.

    Example:
        >>> shown(3), shown("x" * 500)[-15:], shown({"a": 1})
        (3, 'xxxxxxxxxxxx...', "{'a': 1}")
    """
    if value is None or isinstance(value, bool):
        return value
    # Larger whole numbers change when JavaScript reads them.
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and value == value and abs(value) != float("inf"):
        return value
    if isinstance(value, int):
        return f"a whole number of {value.bit_length()} bits"
    # Cut first: a value may be as large as a request.
    text = value[: _LONGEST + 1] if isinstance(value, str) else _described(value)
    # JSON can escape half a character, which cannot be sent back.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _described(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)} items"
    if isinstance(value, dict) and len(value) > 8:
        return f"an object with {len(value)} keys"
    try:
        return _SHORT.repr(value)
    except (ValueError, RecursionError):  # numbers with thousands of digits, very deep lists
        return f"a value of type {type(value).__name__}"
