"""``graftwork completion``: a script that lets the shell complete verbs and options."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "NAME", "add_arguments", "run", "whole_parser"]

NAME = "completion"
HELP = "print a script with which the shell completes verbs and options"
SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.add_argument("shell", choices=SHELLS, help="which shell")
    parser.epilog = (
        "examples:\n"
        '  bash: eval "$(graftwork completion bash)"        # a line for ~/.bashrc\n'
        "  zsh:  graftwork completion zsh > ~/.zfunc/_graftwork   # with fpath+=~/.zfunc before compinit"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from graftwork.core.optional import require

    shtab = require("shtab", extra="completion", purpose="Completion in the shell")
    print(shtab.complete(whole_parser(), shell=arguments.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Return one parser that knows all verbs and their options, as a shell sees the command."""
    from graftwork.cli.common import VerbParser
    from graftwork.cli.main import find_verbs

    parser = argparse.ArgumentParser(prog="graftwork")
    parser.add_argument("--version", action="store_true", help="print the version")
    verbs = parser.add_subparsers(parser_class=VerbParser)
    for name, module in find_verbs().items():
        module.add_arguments(verbs.add_parser(name, help=module.HELP))
    return parser
