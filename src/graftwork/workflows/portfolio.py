"""The portfolio: which plans exist, as plain data. Adding a plan touches a TOML file and no code.

Plans come from ``portfolio.toml`` beside this module, from the ``[[plans]]`` tables of cards, and from TOML files that the
user names. A plan may say ``default``: true, false, or a list of modalities in which it enters without being asked for.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.records import Modality, Plan

__all__ = ["CatalogueEntry", "load_catalogue", "portfolio", "read_plan_file"]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A plan, and where it enters by default."""

    plan: Plan
    default: tuple[str, ...]
    """Modalities in which it enters the race without being named."""
    origin: str
    """File that it comes from."""


def _entry(value: dict[str, Any], origin: str) -> CatalogueEntry:
    fields = dict(value)
    default = fields.pop("default", False)
    try:
        plan = Plan.from_json(fields)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    if default is True:
        default = plan.modalities
    elif default is False:
        default = ()
    elif not isinstance(default, list | tuple) or not set(default) <= set(plan.modalities):
        raise ConfigError(
            f"{origin}: plan {plan.name!r}: `default` must be true, false or a list of its modalities {list(plan.modalities)}; "
            f"got {default!r}."
        )
    return CatalogueEntry(plan, tuple(default), origin)


def read_plan_file(path: str | Path) -> list[CatalogueEntry]:
    """Read the ``[[plans]]`` tables of a TOML file.

    Raises:
        ConfigError: If the file is not TOML, holds no plans, or a plan has unknown or missing keys.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The plans in {path} cannot be read: {error}.") from error
    tables = content.get("plans")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{path} holds no [[plans]] tables; see the file portfolio.toml of graftwork for examples.")
    return [_entry(table, path.name) for table in tables]


def _card_entries() -> list[CatalogueEntry]:
    from graftwork.core.cards import load_cards

    entries = []
    for slug, card in load_cards().items():
        entries += [_entry({"system": slug, **plan}, f"card {slug}") for plan in card.plans]
    return entries


def load_catalogue(extra_files: Iterable[str | Path] = ()) -> dict[str, CatalogueEntry]:
    """Return all plans by name; plans of ``extra_files`` are in the race by default in their modalities.

    Raises:
        ConfigError: If two plans have one name.
    """
    entries = [*read_plan_file(Path(__file__).with_name("portfolio.toml")), *_card_entries()]
    for file in extra_files:
        entries += [CatalogueEntry(entry.plan, entry.plan.modalities, entry.origin) for entry in read_plan_file(file)]
    catalogue: dict[str, CatalogueEntry] = {}
    for entry in entries:
        if entry.plan.name in catalogue:
            raise ConfigError(
                f"Two plans are called {entry.plan.name!r}: in {catalogue[entry.plan.name].origin} and in {entry.origin}. Rename one."
            )
        catalogue[entry.plan.name] = entry
    return catalogue


def portfolio(modality: Modality, num_tasks: int, names: Sequence[str] | None = None) -> list[Plan]:
    """Return the plans that enter the race, the reference family ``separate`` first.

    Args:
        modality: Modality of the suite.
        num_tasks: Number of its tasks; plans with a higher ``min_tasks`` stay out.
        names: None for the defaults; or any of plan names, ``"all"``, ``"+name"`` (besides the defaults), and paths of TOML files
            whose plans join the defaults; or only ``"none"``. Separate single-task models are always in: they are what everything is measured against.

    Raises:
        ConfigError: If a name is unknown, or the plan does not fit this modality or number of tasks.
    """
    asked = list(names or ())
    files = [name.removeprefix("+") for name in asked if name.endswith(".toml")]
    catalogue = load_catalogue(files)
    fitting = {
        name: entry
        for name, entry in catalogue.items()
        if modality in entry.plan.modalities and entry.plan.min_tasks <= num_tasks
    }
    exclusive = [name for name in asked if not name.startswith("+") and not name.endswith(".toml")]
    added = [name[1:] for name in asked if name.startswith("+") and not name.endswith(".toml")]
    if "all" in exclusive:
        chosen = set(fitting)
    elif exclusive == ["none"]:
        chosen = set()
    elif exclusive:
        chosen = set(exclusive) | {name for name, entry in fitting.items() if entry.origin in {Path(file).name for file in files}}
    else:
        chosen = {name for name, entry in fitting.items() if modality in entry.default}
    chosen |= set(added)
    problems = [_problem(name, catalogue, modality, num_tasks) for name in sorted(chosen - set(fitting))]
    if problems:
        raise ConfigError("Some plans cannot enter the race.", problems)
    chosen |= {name for name, entry in fitting.items() if entry.plan.family == "separate" and modality in entry.default}
    plans = [entry.plan for name, entry in fitting.items() if name in chosen]
    return sorted(plans, key=lambda plan: plan.family != "separate")


def _problem(name: str, catalogue: dict[str, CatalogueEntry], modality: str, num_tasks: int) -> str:
    if name in catalogue:
        plan = catalogue[name].plan
        if modality not in plan.modalities:
            return f"{name!r} is for {', '.join(plan.modalities)}, and this suite is of modality {modality}"
        return f"{name!r} needs at least {plan.min_tasks} tasks, and this suite has {num_tasks}"
    near = difflib.get_close_matches(name, catalogue, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known plans: {', '.join(catalogue)}"
    return f"there is no plan {name!r}{hint}"
