"""``graftwork completion``: a script that lets the shell complete verbs and options."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "NAME", "add_arguments", "run", "whole_parser"]

NAME = "completion"
HELP = "print a script with which the shell completes verbs and options"
SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = """examples:
  graftwork completion bash                            for bash: put  eval "$(graftwork completion bash)"  into ~/.bashrc
  graftwork completion zsh > ~/.zfunc/_graftwork       for zsh: put  fpath+=~/.zfunc  before compinit in ~/.zshrc
  graftwork completion tcsh > ~/.graftwork.tcsh        for tcsh: put  source ~/.graftwork.tcsh  into ~/.tcshrc
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.epilog = EXAMPLES


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from graftwork.core.optional import require

    shtab = require("shtab", extra="completion", purpose="Completion in the shell")
    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser that knows all verbs and their options, as a shell sees the command."""
    from graftwork.cli.common import VerbParser, add_debug_argument
    from graftwork.cli.main import find_verbs

    parser = argparse.ArgumentParser(prog="graftwork")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(parser_class=VerbParser)
    for name, module in find_verbs().items():
        verb = verbs.add_parser(name, help=module.HELP)
        module.add_arguments(verb)
        add_debug_argument(verb)
    return parser
