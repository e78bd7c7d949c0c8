"""Reading large JSON texts without holding everything else up. Standard library only.

The decoder of Python is one call that lets no other thread run until it ends, a second or more for some megabytes. Here it gets
pieces of bounded size, so that others run in between; what it returns, and what it refuses, is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

__all__ = ["WINDOW", "parse_large"]

WINDOW = 32_768
"""Characters that the decoder gets at once: about a millisecond. Only a single string or number may be longer."""
_DEEPEST = 200
"""Levels of lists and objects that are each larger than a window."""
_scan_text: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_SPACE = re.compile(r"[ \t\n\r]*")


def parse_large(
    text: str,
    *,
    parse_constant: Callable[[str], Any],
    pause: Callable[[], object] = lambda: None,
    window: int = WINDOW,
) -> Any:
    """Return the value of a JSON text, as ``json.loads`` does.

    Args:
        text: The JSON text.
        parse_constant: Called with ``NaN``, ``Infinity`` and ``-Infinity``.
        pause: Called between two pieces; lets other threads run.
        window: Characters of one piece, at least 4.

    Raises:
        ValueError: If the text is no JSON.
        RecursionError: If it is nested too deep.
    """
    parser = _Parser(text, json.JSONDecoder(parse_constant=parse_constant), pause, window)
    value, end = parser.value(parser.skip(0), 0)
    if parser.skip(end) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


class _Parser:
    def __init__(self, text: str, decoder: json.JSONDecoder, pause: Callable[[], object], window: int) -> None:
        self._text = text
        self._scan: Callable[[str, int], tuple[Any, int]] = decoder.scan_once  # type: ignore[attr-defined]
        self._pause = pause
        self._window = window
        self._begin = 0
        self._piece = text[:window]

    def skip(self, at: int) -> int:
        """Return where white space ends."""
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """Return the value that begins at ``at``, and where it ends."""
        found = self._in_piece(at)
        if found is None and at != self._begin:
            # It may fit if the piece begins with it.
            self._pause()
            self._begin, self._piece = at, self._text[at : at + self._window]
            found = self._in_piece(at)
        if found is not None:
            return found
        sign = self._text[at : at + 1]
        if sign not in ("[", "{"):
            # Text and numbers of any length are quick; of what is no value, the decoder says so.
            return self._one(at)
        if depth >= _DEEPEST:
            raise RecursionError
        return self._list(at + 1, depth + 1) if sign == "[" else self._object(at + 1, depth + 1)

    def _in_piece(self, at: int) -> tuple[Any, int] | None:
        """Return a value if it is whole in the piece; None if it is not, or is no value."""
        start = at - self._begin
        if not 0 <= start < len(self._piece):
            return None
        try:
            value, end = self._scan(self._piece, start)
        except (StopIteration, ValueError):
            return None
        # A number at the end of a piece may go on behind it, after a point or an `e+` that did not belong to it here.
        if end > len(self._piece) - 3 and self._begin + len(self._piece) < len(self._text):
            return None
        return value, self._begin + end

    def _one(self, at: int) -> tuple[Any, int]:
        try:
            return self._scan(self._text, at)
        except StopIteration:
            raise self._fault("Expecting value", at) from None

    def _list(self, at: int, depth: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self.skip(at)
        if self._text[at : at + 1] == "]":
            return found, at + 1
        # Short items go many at a time; where that fails, one by one up to here.
        singly = 0
        while True:
            many = self._items(at) if at >= singly else None
            if many is not None:
                found += many[0]
                at = many[1]
            else:
                singly = max(singly, at + self._window)
                value, at = self.value(at, depth)
                found.append(value)
                at = self.skip(at)
            sign = self._text[at : at + 1]
            if sign == "]":
                return found, at + 1
            if sign != ",":
                raise self._fault("Expecting ',' delimiter", at)
            at = self.skip(at + 1)

    def _items(self, at: int) -> tuple[list[Any], int] | None:
        """Return the items of a list up to a comma within a window, and where that is; None if no comma of this list was found."""
        cut = self._text.rfind(",", at, at + self._window)
        self._pause()
        # The last comma may be part of a string; then the one before that string is tried.
        for _ in range(2):
            if cut < 0:
                return None
            piece = f"[{self._text[at:cut]}]"
            try:
                values, end = self._scan(piece, 0)
            except json.JSONDecodeError as error:
                if not error.msg.startswith("Unterminated"):
                    return None
                before = piece[: error.pos].rstrip()
                cut = at + len(before) - 2 if before.endswith(",") else -1
            except (StopIteration, ValueError):
                return None
            else:
                return (values, cut) if values and end == len(piece) else None
        return None

    def _object(self, at: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self.skip(at)
        if self._text[at : at + 1] == "}":
            return found, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise self._fault("Expecting property name enclosed in double quotes", at)
            key, at = _scan_text(self._text, at + 1, True)
            at = self.skip(at)
            if self._text[at : at + 1] != ":":
                raise self._fault("Expecting ':' delimiter", at)
            found[key], at = self.value(self.skip(at + 1), depth)
            at = self.skip(at)
            sign = self._text[at : at + 1]
            if sign == "}":
                return found, at + 1
            if sign != ",":
                raise self._fault("Expecting ',' delimiter", at)
            at = self.skip(at + 1)

    def _fault(self, reason: str, at: int) -> json.JSONDecodeError:
        return json.JSONDecodeError(reason, self._text, at)
