"""``graftwork new method``: start the files of a system."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "new"
HELP = "start the files of a new system in a source checkout: graftwork new method ROOM SLUG"
EXAMPLES = """examples:
  graftwork new method tuning unipt                 a planned system: its card gets the parts
  graftwork new method merging my-merger --title "..." --year 2025 --link https://... --summary "..." --claim "..."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    from graftwork.core.cards import ROOMS

    parser.add_argument("what", choices=["method"], help="what to start")
    parser.add_argument("room", metavar="ROOM", help=f"one of {', '.join(ROOMS)}")
    parser.add_argument("slug", metavar="SLUG", help="short lower-case name with hyphens; the stem of all files")
    parser.add_argument("--seam", metavar="SEAM", help="interface to implement (default: the room's usual one; '' for none)")
    parser.add_argument("--field", metavar="FIELD", default="", help="field of application: puts the module into domains/F")
    for name in ("title", "year", "link", "summary", "claim"):
        parser.add_argument(f"--{name}", metavar=name.upper(), help="for a system that has no card yet")


def run(arguments: argparse.Namespace) -> int:
    """Write the files and say what comes next."""
    from graftwork.workflows.new_method import new_method, source_root

    details = {
        name: getattr(arguments, name) for name in ("title", "year", "link", "summary", "claim") if getattr(arguments, name)
    }
    root = source_root()
    done = new_method(arguments.room, arguments.slug, root=root, seam=arguments.seam, field=arguments.field, details=details)
    print("Written:")
    for path in done.written:
        print(f"  {path.relative_to(root)}")
    print(
        f"\nNext: write the method until `pytest {done.written[2].relative_to(root)}` passes, then the recipe until\n"
        f"`graftwork reproduce {done.slug} --smoke` does. The fifth file, {done.evidence.relative_to(root)},\n"
        f"is the evidence; `graftwork reproduce {done.slug}` writes it, whatever the verdict."
    )
    return 0
