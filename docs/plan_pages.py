"""The generated page of plans: what each is, where it enters, and how it is written."""

from __future__ import annotations

import html
from collections.abc import Iterable

from graftwork.cli.plans import plan_text
from graftwork.workflows.plan_asks import ASKS
from graftwork.workflows.portfolio import CatalogueEntry

__all__ = ["plans_page"]


def plans_page(entries: Iterable[CatalogueEntry]) -> str:
    """Return the page with all plans by group, each with its text to copy."""
    groups: dict[str, list[CatalogueEntry]] = {}
    for entry in entries:
        groups.setdefault(entry.plan.group or entry.plan.role, []).append(entry)
    parts = [
        "# Plans\n\nWhat a race can hold. Those with a default enter by themselves for the data named there; any other joins with "
        "`--plans +NAME`. `graftwork plans NAME > mine.toml` writes one into a file: give it a name of its own, change it, and race "
        "it with `--plans mine.toml` ([Adding a plan](../adding-a-plan.md))."
    ]
    for group, members in groups.items():
        parts.append(f"## {group.capitalize()}")
        parts += [_section(entry) for entry in members]
    return "\n\n".join(parts) + "\n"


def _section(entry: CatalogueEntry) -> str:
    plan = entry.plan
    default = ", ".join("all data" if kind == "any" else kind for kind in entry.default) or "no"
    data = "all" if "any" in plan.modalities else ", ".join(plan.modalities)
    facts = [f"data: {data}", f"default: {default}"]
    if plan.min_tasks > 1:
        facts.append(f"at least {plan.min_tasks} tasks")
    if entry.asks:
        facts.append(f"asks for: {', '.join(ASKS[ask] for ask in entry.asks)}")
    if plan.system:
        facts.append(f"system: [{plan.system}](systems/{plan.system}.md)")
    title = html.escape(plan.title, quote=False)
    return f"### {plan.name}\n\n{title}. {'; '.join(facts)}.\n\n```toml\n{plan_text(entry)}\n```"
