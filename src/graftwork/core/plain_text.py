"""Text from data and files, made safe to print: a terminal obeys control characters, and a file may hold any. Standard library only."""

from __future__ import annotations

import re
import secrets
from typing import Any, TextIO, cast

__all__ = ["PlainTerminal", "own_code", "plain_terminal", "plain_text"]

_KEPT = "\t\n"
# Beside C0, DEL and C1: marks that turn the direction of writing, which show other text than is there.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {
    number: f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" for number in _CONTROLS if chr(number) not in _KEPT
}
_KEY = secrets.token_hex(8)
_OWN = re.compile(f"\x02{_KEY}([^\x03]*)\x03")


def plain_text(text: str) -> str:
    r"""Return a text with its control characters written out; tabs and line ends stay.

    Example:
        >>> print(plain_text("red \x1b[31m and \r back"))
        red \x1b[31m and \x0d back
    """
    # Most texts have none, and this is quick to see.
    return text if text.isascii() and text.isprintable() else text.translate(_ESCAPES)


def own_code(code: str, stream: Any) -> str:
    """Return a terminal code of our own, marked so that a :class:`PlainTerminal` lets it through; data cannot know the mark."""
    return f"\x02{_KEY}{code}\x03" if isinstance(stream, PlainTerminal) else code


class PlainTerminal:
    """A stream to a terminal that writes control characters out, but for the codes of :func:`own_code`.

    Args:
        stream: What is written to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        """The terminal itself, for what writes codes and makes its texts plain on its own."""

    def write(self, text: str) -> int:
        """Write a text."""
        parts = _OWN.split(text)
        # Texts and own codes take turns.
        self.stream.write("".join(part if index % 2 else plain_text(part) for index, part in enumerate(parts)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def plain_terminal(stream: TextIO) -> TextIO:
    """Return a stream that is safe to print data to: a :class:`PlainTerminal` for a terminal, the stream itself otherwise."""
    # Files and pipes get what there is; programs read them.
    if stream is None or isinstance(stream, PlainTerminal) or not stream.isatty():
        return stream
    return cast(TextIO, PlainTerminal(stream))
