"""The generated page of plans: what each is, where it enters, and how it is written."""

from __future__ import annotations

import html
from collections.abc import Iterable

from graftwork.cli.plans import plan_text
from graftwork.workflows.plan_asks import ASKS
from graftwork.workflows.portfolio import CatalogueEntry

__all__ = ["plans_page"]


def plans_page(entries: Iterable[CatalogueEntry]) -> str:
    """Return the page with a table of all plans and, by group, each with its text to copy."""
    groups: dict[str, list[CatalogueEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.plan.group or entry.plan.role, []).append(entry)
    parts = [
        "# Plans\n\nA plan is one way of learning your tasks: which models, what they share, how they are trained. `graftwork fit` lets "
        "plans race on your data, `graftwork compare` gives each of them the same budget. Some race by themselves, on the data that "
        "the table names; any other joins with `--plans +NAME`.",
        "To change one: `graftwork plans NAME > mine.toml` writes it into a file. Give it a name of its own, change it, and race it "
        "with `--plans mine.toml` ([Adding a plan](../adding-a-plan.md)).",
        "\n".join(
            [
                "| plan | what it is | data | races by itself |",
                "|---|---|---|---|",
                *(_row(entry) for members in groups.values() for entry in members),
            ]
        ),
    ]
    for group, members in groups.items():
        # Names of groups and of plans may be equal: links in the table lead to the plans.
        parts.append(f"## {group.capitalize()} {{ #group-{group.replace(' ', '-')} }}")
        parts += [_section(entry) for entry in members]
    return "\n\n".join(parts) + "\n"


def _data(entry: CatalogueEntry) -> str:
    return "all" if "any" in entry.plan.modalities else ", ".join(entry.plan.modalities)


def _default(entry: CatalogueEntry) -> str:
    return ", ".join("all data" if kind == "any" else kind for kind in entry.default)


def _title(entry: CatalogueEntry) -> str:
    return html.escape(entry.plan.title, quote=False)


def _row(entry: CatalogueEntry) -> str:
    name = entry.plan.name
    return f"| [{name}](#{name}) | {_title(entry).replace('|', '&#124;')} | {_data(entry)} | {_default(entry) or 'no'} |"


def _section(entry: CatalogueEntry) -> str:
    plan, default = entry.plan, _default(entry)
    facts = [f"Data: {_data(entry)}", f"races by itself: {default or 'no'}"]
    if plan.min_tasks > 1:
        facts.append(f"needs at least {plan.min_tasks} tasks")
    if entry.asks:
        facts.append(f"asks for {', '.join(ASKS[ask] for ask in entry.asks)}")
    if plan.system:
        facts.append(f"system [{plan.system}](systems/{plan.system}.md)")
    return (
        f"### {plan.name}\n\n{_title(entry)}.\n\n{'; '.join(facts)}.\n\n"
        f'<details markdown="1"><summary>As a file</summary>\n\n```toml\n{plan_text(entry)}\n```\n\n</details>'
    )
