"""All attacks, one after the other: files, kills, repeats, a server. Each runs to its end, whatever the others found.

    python -m tests.torture --count 300 --minutes 10 [--seed 1] [--keep FOLDER]

The seed is drawn if none is given, and printed first; given again, it makes the same attacks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from .options import add_options, settle

__all__ = ["ATTACKS", "main"]

ATTACKS = ("files", "kills", "repeat", "server")
"""Modules, each a command of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return 1 if one of them found something."""
    parser = argparse.ArgumentParser(prog="tests.torture", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="damaged files of each kind")
    add_options(parser, minutes=10.0, minutes_help="of each attack but that with files, which goes by --count")
    parser.add_argument("--attacks", default=",".join(ATTACKS), help=f"of {', '.join(ATTACKS)}")
    args = parser.parse_args(argv)
    settle(args, "torture")
    codes = {}
    for name in args.attacks.split(","):
        amount = ["--count", str(args.count)] if name == "files" else ["--minutes", str(args.minutes)]
        words = [*amount, "--seed", str(args.seed), "--keep", str(args.keep / name)]
        codes[name] = subprocess.run([sys.executable, "-m", f"tests.torture.{name}", *words], check=False).returncode
    for name, code in codes.items():
        print(f"{name}: {'nothing found' if code == 0 else f'exit code {code}'}", flush=True)
    print(f"seed {args.seed}; what failed is in {args.keep}", flush=True)
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
