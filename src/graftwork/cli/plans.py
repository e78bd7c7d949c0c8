"""``graftwork plans``: which ways of learning a race can hold, and what one of them is made of."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from graftwork.cli.shared_flags import add_json_argument, add_modality_argument

if TYPE_CHECKING:
    from graftwork.core.plan import Plan
    from graftwork.workflows.portfolio import CatalogueEntry

__all__ = ["HELP", "NAME", "add_arguments", "run"]

NAME = "plans"
HELP = "list the plans that a race can hold, and what they ask for; with a name, print one in full, as a file to change"
EXAMPLES = """examples:
  graftwork plans                          all plans; a star marks those that enter a race by themselves
  graftwork plans --modality table         those for tables
  graftwork plans ple                      what it is, what it asks for, what it costs, and how it is written
  graftwork plans ple > mine.toml          a plan to change; race it with: graftwork fit ... --plans mine.toml"""


_WIDE = 130
"""Characters from which a listing has all columns."""
_MOST = 22
"""Longest list of data, or of what is asked for, in a listing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this plan in full, as TOML")
    add_modality_argument(parser, "plans")
    add_json_argument(parser, "the plans")


def run(arguments: argparse.Namespace) -> int:
    """List all plans, or show one."""
    from graftwork.cli.tables import paragraph, terminal_width
    from graftwork.workflows.portfolio import load_catalogue

    catalogue = load_catalogue()
    if arguments.name:
        entry = _named(arguments.name, catalogue)
        print(json.dumps(_record(entry), ensure_ascii=False, indent=2) if arguments.json else plan_page(entry))
        return 0
    kind = arguments.modality
    entries = [entry for entry in catalogue.values() if kind is None or entry.plan.fits((kind,))]
    if arguments.json:
        print(json.dumps([_record(entry) for entry in entries], ensure_ascii=False, indent=2))
        return 0
    print(plans_table(entries, kind, terminal_width()))
    hint = (
        f"{len(entries)} plans. * enters a race by itself; others by name: graftwork fit DATA --plans +NAME. What a plan asks for "
        "must be there, beside rows and labels. `graftwork plans NAME` prints one in full."
    )
    print(f"\n{paragraph(hint, width=terminal_width())}")
    return 0


def plans_table(entries: list[CatalogueEntry], kind: str | None, width: int) -> str:
    """Return the listing of some plans.

    Args:
        entries: The plans.
        kind: The star is set for races of this kind of data; None sets it for plans that enter any race.
        width: Characters of a line; narrow listings leave out the group, and say below each plan what it asks for.
    """
    from graftwork.cli.tables import format_table

    rows = []
    for entry in entries:
        plan = entry.plan
        starred = entry.enters((kind,)) if kind else bool(entry.default) and not entry.missing
        what = f"{plan.title} ({entry.missing})" if entry.missing else plan.title
        asks = ", ".join(_told(entry))
        rows.append(["*" if starred else "", plan.name, plan.group or plan.role, _cut(_data(plan)), _cut(asks), what])
    header = ["", "plan", "group", "data", "asks for", "what it is"]
    if width < _WIDE:
        header = ["", "plan", "data", "what it is"]
        rows = [[star, name, data, f"{what}; asks for {asks}" if asks else what] for star, name, _, data, asks, what in rows]
    return format_table(header, rows, width=width, stretch=len(header) - 1, wrap=True)


def _data(plan: Plan) -> str:
    return "all" if "any" in plan.modalities else ", ".join(plan.modalities)


def _told(entry: CatalogueEntry) -> list[str]:
    """Return what a plan asks for, without the backbone where a special one is asked for."""
    from graftwork.workflows.plan_asks import ASKS

    is_special = any("backbone" in ASKS[ask] for ask in entry.asks if ask != "backbone")
    return [ask for ask in entry.asks if ask != "backbone" or not is_special]


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST - 1].rstrip(', +')}…"


def plan_page(entry: CatalogueEntry) -> str:
    """Return what a plan is, what it asks for and what it costs, as comments, and then the plan as :func:`plan_text` writes it."""
    from graftwork.workflows.plan_asks import ASKS

    plan = entry.plan
    unless = ", where what it asks for is there" if entry.asks else ", once that is installed" if entry.missing else ""
    enters = ", ".join("all data" if kind == "any" else kind for kind in entry.default)
    facts = [
        (plan.name, plan.title),
        ("data", f"{_data(plan)}{f'; at least {plan.min_tasks} tasks' if plan.min_tasks > 1 else ''}"),
        (
            "in a race",
            f"by itself for {enters}{unless}" if enters else f"by name: graftwork fit DATA --plans +{plan.name}",
        ),
        ("asks for", "; ".join(ASKS[ask] for ask in _told(entry)) or "nothing beside rows and labels"),
        ("costs", "; ".join(cost_words(entry))),
        ("missing", entry.missing),
        ("system", f"graftwork show {plan.system}" if plan.system else ""),
    ]
    width = max(len(name) for name, _ in facts)
    return "\n".join([*(f"# {name:<{width}}  {text}" for name, text in facts if text), plan_text(entry)])


def cost_words(entry: CatalogueEntry) -> list[str]:
    """Return what is known of a plan's costs before anything is measured, and how to measure them."""
    plan, found = entry.plan, []
    if plan.fitted_at_once:
        found.append("fitted in one go")
    elif plan.quick:
        found.append("trained within seconds where others take long")
    else:
        found.append("trained step by step, for as long as the race has time")
    if plan.role == "reference":
        found.append("a model for each task, so that time and size grow with their number")
    if plan.source == "pretrained":
        found.append("passes through the backbone take most of the time")
    if len(plan.stages) > 1:
        found.append(f"{len(plan.stages)} stages one after another ({', '.join(stage.kind for stage in plan.stages)})")
    if entry.variants:
        count = len(entry.variants)
        found.append(f"{count} other setting{' is' if count == 1 else 's are'} tried where time is left")
    return [*found, f"seconds on your data: graftwork fit DATA --plans {plan.name} --dry-run"]


def plan_text(entry: CatalogueEntry) -> str:
    """Return a plan as a ``[[plans]]`` table of a TOML file."""
    values: dict[str, Any] = {
        **entry.plan.to_json(),
        "asks": _declared(entry),
        "needs": dict(entry.needs),
        "variants": list(entry.variants),
    }
    lines = [f"# from {entry.origin}", "[[plans]]"]
    lines += [f"{_key(key)} = {_toml(value)}" for key, value in values.items() if value not in ("", None, [], {})]
    return "\n".join(lines)


def _declared(entry: CatalogueEntry) -> list[str]:
    """Return what a file says that a plan asks for: a pretrained source asks for a backbone without that."""
    implied = ["backbone"] if entry.plan.source == "pretrained" else []
    return [ask for ask in entry.asks if ask not in implied]


def _record(entry: CatalogueEntry) -> dict[str, Any]:
    return {
        **entry.plan.to_json(),
        "default": list(entry.default),
        "asks": list(entry.asks),
        "needs": dict(entry.needs),
        "variants": [dict(variant) for variant in entry.variants],
        "costs": cost_words(entry),
        "origin": entry.origin,
    }


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
