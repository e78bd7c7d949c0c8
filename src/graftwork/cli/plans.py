"""``graftwork plans``: which ways of learning a race can hold, and what one of them is made of."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from graftwork.cli.shared_flags import add_json_argument, add_modality_argument

if TYPE_CHECKING:
    from graftwork.workflows.portfolio import CatalogueEntry

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "plans"
HELP = "list the plans that a race can hold, with a sentence each; with a name, show one as it is written in a file"
EXAMPLES = """examples:
  graftwork plans                          all plans; a star marks those that enter a race by themselves
  graftwork plans --modality table         those for tables
  graftwork plans ple > mine.toml          a plan to change; race it with: graftwork fit ... --plans mine.toml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this plan as TOML")
    add_modality_argument(parser, "plans")
    add_json_argument(parser, "the plans")


def run(arguments: argparse.Namespace) -> int:
    """List all plans, or show one."""
    from graftwork.cli.tables import terminal_width
    from graftwork.workflows.portfolio import load_catalogue

    catalogue = load_catalogue()
    if arguments.name:
        entry = _named(arguments.name, catalogue)
        print(json.dumps(_record(entry), ensure_ascii=False, indent=2) if arguments.json else plan_text(entry))
        return 0
    kind = arguments.modality
    entries = [entry for entry in catalogue.values() if kind is None or entry.plan.fits((kind,))]
    if arguments.json:
        print(json.dumps([_record(entry) for entry in entries], ensure_ascii=False, indent=2))
        return 0
    print(plans_table(entries, kind, terminal_width()))
    print(
        f"\n{len(entries)} plans. * enters a race by itself; others by name: graftwork fit DATA --plans +NAME. "
        "`graftwork plans NAME` shows one."
    )
    return 0


def plans_table(entries: list[CatalogueEntry], kind: str | None, width: int) -> str:
    """Return the listing of some plans.

    Args:
        entries: The plans.
        kind: The star is set for races of this kind of data; None sets it for plans that enter any race.
        width: Characters of a line.
    """
    from graftwork.cli.tables import format_table

    rows = []
    for entry in entries:
        plan = entry.plan
        starred = entry.enters((kind,)) if kind else bool(entry.default) and not entry.missing
        data = "all" if "any" in plan.modalities else ", ".join(plan.modalities)
        rows.append(
            [
                "*" if starred else "",
                plan.name,
                plan.group or plan.role,
                data,
                f"{plan.title} ({entry.missing})" if entry.missing else plan.title,
            ]
        )
    return format_table(["", "plan", "group", "data", "what it is"], rows, width=width, stretch=4)


def plan_text(entry: CatalogueEntry) -> str:
    """Return a plan as a ``[[plans]]`` table of a TOML file."""
    lines = [f"# from {entry.origin}", "[[plans]]"]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in entry.plan.to_json().items() if value not in ("", None, [], {})]
    return "\n".join(lines)


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    return {**entry.plan.to_json(), "default": list(entry.default), "needs": dict(entry.needs), "origin": entry.origin}


def _named(name: str, catalogue: dict[str, CatalogueEntry]) -> CatalogueEntry:
    if name in catalogue:
        return catalogue[name]
    from graftwork.core.errors import ConfigError
    from graftwork.core.nearest import did_you_mean

    raise ConfigError(f"There is no plan {name!r}.{did_you_mean(name, list(catalogue))} See: graftwork plans")


def _toml(value: Any) -> str:
    """Return a JSON value as an inline TOML value; TOML has no null, so keys without a value are left out."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # Texts, numbers, true and false are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name, ensure_ascii=False)
