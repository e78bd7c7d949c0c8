"""What the verbs share: a parser whose errors help, and the reading of ``key=value``. Standard library only."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from graftwork.core.nearest import did_you_mean

__all__ = [
    "VerbParser",
    "add_component_argument",
    "add_debug_argument",
    "first_example",
    "parse_assignments",
    "parse_value",
    "quiet_pipe",
]


@contextlib.contextmanager
def quiet_pipe() -> Iterator[None]:
    """Go on behind the block without a word when the reader of standard output went away (head, less); what is printed later
    goes nowhere."""
    try:
        yield
        sys.stdout.flush()  # short texts wait in the buffer and would only fail when the interpreter ends
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            # The interpreter flushes standard output once more when it ends, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class VerbParser(argparse.ArgumentParser):
    """An argument parser whose errors name the nearest flag or value, and show an example where something is missing; no silent
    abbreviations."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def format_help(self) -> str:
        """Return the help, with a line of usage that names what must be given and leaves the options to the list below it."""
        self.usage = self.usage or self._usage().replace("%", "%%")
        return super().format_help()

    def _usage(self) -> str:
        words = [self.prog]
        for action in self._actions:
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            if action.option_strings:
                words += [f"{action.option_strings[0]} {name}"] if action.required else []
            elif action.choices is not None and action.metavar is None:
                words.append("|".join(map(str, action.choices)))
            else:
                words.append({"?": f"[{name}]", "+": f"{name} [{name} ...]", "*": f"[{name} ...]"}.get(str(action.nargs), name))
        return " ".join([*words, "[options]"])

    def error(self, message: str) -> NoReturn:
        """Print the problem and leave with exit code 2."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        unknown = re.match(r"unrecognized arguments: (.*)", message)
        if unknown:
            # Values of `--flag=value` are no part of the name.
            words = [word.partition("=")[0] for word in unknown.group(1).split() if word.startswith("-")]
            hints = [f"there is no option {word}.{did_you_mean(word, flags)}" for word in words]
            # Words without a dash: a second source, say.
            message = " ".join(hints) or f"too many arguments: {unknown.group(1)}."
        elif lacking := re.match(r"the following arguments are required: (.*)", message):
            message = self._lacking(lacking.group(1).split(", "))
        elif wrong := re.match(r"argument ([^:]+): (.*)", message, re.DOTALL):
            message = self._wrong(wrong.group(1), wrong.group(2)) or message
        print(f"{self.prog}: {message}\nSee: {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)

    def _lacking(self, names: Sequence[str]) -> str:
        """Return what is missing, with its help, and the first example of the verb."""
        told = [f"{name}: {action.help}" if (action := self._action(name)) else name for name in names]
        example = first_example(self.epilog or "", self.prog)
        what = "this is missing:" if len(names) == 1 else "these are missing:"
        return "\n".join([what, *(f"  {line}" for line in told), *([f"For example: {example}"] if example else [])])

    def _wrong(self, name: str, problem: str) -> str:
        """Return what is wrong with the value of an argument; empty if argparse says it well."""
        action = self._action(name)
        if action is None:
            return ""
        name = next((flag for flag in action.option_strings if flag.startswith("--")), f"the argument {name}")
        value = re.match(r"invalid (\w+)(?: value)?: '(.*?)'(?: \(choose from .*)?$", problem, re.DOTALL)
        if value and action.choices is not None:
            choices = [str(choice) for choice in action.choices]
            return f"{name} takes {_one_of(choices)}; got {value.group(2)!r}.{did_you_mean(value.group(2), choices)}"
        if value:
            kind = {"int": "a whole number", "float": "a number"}.get(value.group(1))
            return f"{name} takes {kind}; got {value.group(2)!r}." if kind else ""
        return f"{name} needs a value: {action.help}" if problem.startswith("expected") and action.help else ""

    def _action(self, name: str) -> argparse.Action | None:
        """Return the argument that argparse calls so in messages: by its flags, its metavar or its name."""
        words = set(name.split("/"))
        for action in self._actions:
            if words & {*action.option_strings, *filter(None, [str(action.metavar), action.dest])}:
                return action
        return None


def first_example(epilog: str, prog: str) -> str:
    """Return the first example of a verb that gives it something, without the remark behind it; empty if there is none.

    Example:
        >>> first_example("examples:\\n  graftwork fit\\n  graftwork fit table.csv     a table", "graftwork fit")
        'graftwork fit table.csv'
    """
    lines = (re.split(r" {3,}|  #", line.strip())[0] for line in epilog.splitlines())
    return next((line for line in lines if line.startswith(f"{prog} ")), "")


def _one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def add_debug_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug``, which every verb has."""
    parser.add_argument("--debug", action="store_true", help="show the Python traceback of errors")


def add_component_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add ``--allow-components`` to a verb that reads plans or run folders; :func:`graftwork.cli.main.main` applies it."""
    parser.add_argument(
        "--allow-components",
        metavar="PACKAGE",
        action="append",
        default=[],
        help="package besides graftwork whose classes plans and models may name, and whose code may run; may repeat",
    )


def parse_value(text: str) -> Any:
    """Return a JSON value if ``text`` is one, the text itself otherwise.

    Example:
        >>> parse_value("0.1"), parse_value("true"), parse_value("adamw")
        (0.1, True, 'adamw')
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def parse_assignments(items: Sequence[str], *, flag: str, plain: bool = False) -> dict[str, Any]:
    """Return ``{key: value}`` for ``["key=value", ...]``.

    Args:
        items: What the user gave.
        flag: Name of the flag, for messages.
        plain: Keep values as text.

    Raises:
        ConfigError: If an item has no ``=``, or a key comes twice.
    """
    from graftwork.core.errors import ConfigError

    found: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key.strip() or not value.strip():
            raise ConfigError(f"{flag} takes key=value; got {item!r}.")
        if key.strip() in found:
            raise ConfigError(f"{flag} gives {key.strip()!r} twice. Keep one.")
        found[key.strip()] = value.strip() if plain else parse_value(value.strip())
    return found
