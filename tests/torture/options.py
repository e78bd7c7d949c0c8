"""What all attacks are told on the command line: a seed, minutes, and where to keep what fails."""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

__all__ = ["add_options", "settle"]


def add_options(parser: argparse.ArgumentParser, *, minutes: float | None, minutes_help: str = "how long it lasts") -> None:
    """Add ``--minutes``, ``--seed`` and ``--keep``."""
    parser.add_argument("--minutes", type=float, default=minutes, help=minutes_help)
    parser.add_argument("--seed", type=int, help="decides everything that is drawn (default: drawn, and printed at once)")
    parser.add_argument("--keep", type=Path, help="where what fails goes (default: a new temporary folder)")


def settle(args: argparse.Namespace, what: str) -> None:
    """Draw a seed if none was given, make a folder to keep what fails, and print both before anything else happens.

    Args:
        args: Gets ``seed`` and ``keep``.
        what: Name of the attack.
    """
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(10**6)
    args.keep = (args.keep or Path(tempfile.mkdtemp(prefix=f"graftwork-{what}-"))).absolute()
    print(f"{what}: seed {args.seed}; what fails is kept in {args.keep}", flush=True)
