"""What tests of the whole command line read: the parser of every verb, and the examples in its help."""

from __future__ import annotations

import re

from graftwork.cli.common import VerbParser, add_debug_argument
from graftwork.cli.main import find_verbs

__all__ = ["examples_of", "parsers"]


def parsers() -> dict[str, VerbParser]:
    """Return a parser for every verb, as the command makes it."""
    found = {}
    for name, module in find_verbs().items():
        found[name] = VerbParser(prog=f"graftwork {name}", description=module.HELP)
        module.add_arguments(found[name])
        add_debug_argument(found[name])
    return found


def examples_of(parser: VerbParser) -> list[str]:
    """Return the commands that a verb's help shows, without remarks behind them and what follows a redirection."""
    text = parser.format_help()
    lines = text[text.index("examples:") :].splitlines()[1:] if "examples:" in text else []
    commands = [re.split(r" {3,}|  #", line.strip())[0] for line in lines if re.match(r"  (?:[A-Z_]+=\S+ )?graftwork ", line)]
    return [re.sub(r"^[A-Z_]+=\S+ ", "", command).partition(" > ")[0] for command in commands]
