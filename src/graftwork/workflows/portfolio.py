"""The portfolio: which plans exist, as plain data. Adding a plan touches a TOML file and no code.

Plans come from ``portfolio.toml`` beside this module, from the ``[[plans]]`` tables of cards, and from TOML files that the
user names. A plan may say ``default``: true, false, or a list of modalities in which it enters without being asked for;
``variants``: other settings that are tried for it when a race has time left; and ``needs``: optional packages without which it does
not exist for a race, ``{ package = "extra that installs it" }``; ``asks``: what it asks for beside rows and labels, of
:data:`graftwork.workflows.plan_asks.ASKS`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.input_kinds import join_kinds
from graftwork.core.nearest import nearest_name
from graftwork.core.optional import has
from graftwork.core.plan import Plan
from graftwork.core.toml_text import read_toml
from graftwork.workflows.plan_asks import ASKS, asks_of
from graftwork.workflows.plan_check import check_plans, part_problems, plan_problems, training_problems

__all__ = [
    "CatalogueEntry",
    "check_asked",
    "check_stored",
    "load_catalogue",
    "plan_table_problems",
    "portfolio",
    "read_plan_file",
    "read_plan_tables",
    "unmet_asks",
    "variants_of",
]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A plan, and where it enters by default."""

    plan: Plan
    default: tuple[str, ...]
    """Kinds of input with which it enters the race without being named."""
    origin: str
    """File that it comes from."""
    variants: tuple[Mapping[str, Any], ...] = ()
    """Other settings that a race with time left tries, in this order: ``{"training": {...}, "learner": {...}}``."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Packages that it needs besides those of its kind of data, with graftwork's extra that installs each."""
    asks: tuple[str, ...] = ()
    """What it asks for beside rows and labels; see :mod:`graftwork.workflows.plan_asks`."""

    @property
    def missing(self) -> str:
        """What is not installed and how to install it, as in ``needs catboost: pip install "graftwork[boosters]"``; empty if nothing."""
        absent = [package for package in self.needs if not has(package)]
        extras = ",".join(dict.fromkeys(self.needs[package] for package in absent))
        return f'needs {" and ".join(absent)}: pip install "graftwork[{extras}]"' if absent else ""

    def enters(self, kinds: Collection[str]) -> bool:
        """Return whether it enters the race of a suite with inputs of these kinds without being named."""
        return bool(self.default) and not self.missing and self.plan.fits(kinds, self.default)


def _entry(value: Any, origin: str) -> tuple[CatalogueEntry, list[str]]:
    """Return a plan as far as it can be read, and all problems."""
    # What is no table goes on to `Plan.read`, which says so.
    fields = dict(value) if isinstance(value, Mapping) else value
    default = fields.pop("default", False) if isinstance(fields, dict) else False
    variants = fields.pop("variants", []) if isinstance(fields, dict) else []
    needs = fields.pop("needs", {}) if isinstance(fields, dict) else {}
    asks = fields.pop("asks", []) if isinstance(fields, dict) else []
    plan, problems = Plan.read(fields)
    if default is True:
        default = plan.modalities
    elif default is False:
        default = ()
    elif not isinstance(default, list | tuple) or not _covers(plan.modalities, default):
        problems.append(f"`default` must be true, false or a list of its modalities {list(plan.modalities)}; got {default!r}")
        default = ()
    if not _are_variants(variants):
        problems.append(f"`variants` must be a list of tables with `training` or `learner` settings; got {variants!r:.200}")
        variants = []
    if not isinstance(needs, Mapping) or not all(isinstance(item, str) and item for pair in needs.items() for item in pair):
        problems.append(
            f'`needs` must be a table of packages with the extra of each, as in {{ catboost = "boosters" }}; got {needs!r:.200}'
        )
        needs = {}
    if not isinstance(asks, list) or not all(isinstance(item, str) and item in ASKS for item in asks):
        problems.append(f"`asks` must be a list of {', '.join(ASKS)}; got {asks!r:.200}")
        asks = []
    return CatalogueEntry(plan, tuple(default), origin, tuple(variants), dict(needs), asks_of(plan, asks)), [
        f"plan {plan.name!r}: {problem}" for problem in problems
    ]


def _are_variants(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, Mapping)
        and one
        and set(one) <= {"training", "learner"}
        and all(isinstance(part, Mapping) for part in one.values())
        for one in value
    )


def _covers(modalities: Collection[str], default: Iterable[Any]) -> bool:
    return "any" in modalities or set(map(str, default)) <= set(modalities)


def _entries(tables: Iterable[Any], origin: str) -> list[CatalogueEntry]:
    read = [_entry(table, origin) for table in tables]
    problems = [problem for _, found in read for problem in found]
    if problems:
        raise ConfigError(f"{origin}: the plans cannot be used.", problems)
    return [entry for entry, _ in read]


def plan_table_problems(tables: Iterable[Any]) -> list[str]:
    """Return everything that is wrong with ``[[plans]]`` tables: keys, values, components, their settings, training settings."""
    problems = []
    for table in tables:
        entry, found = _entry(table, "")
        problems += [*found, *(f"plan {entry.plan.name!r}: {problem}" for problem in part_problems(entry.plan))]
    return problems


def read_plan_tables(path: str | Path) -> list[Any]:
    """Return the ``[[plans]]`` tables of a TOML file as they stand there.

    Raises:
        ConfigError: If the file is not TOML or holds no plans.
    """
    path = Path(path)
    try:
        content = read_toml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"The plans in {path} cannot be read: {error}.") from error
    tables = content.get("plans")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{path} holds no [[plans]] tables; see the file portfolio.toml of graftwork for examples.")
    return tables


def variants_of(plan: str, names: Sequence[str] | None = None) -> tuple[Mapping[str, Any], ...]:
    """Return the other settings that a race with time left tries for a plan.

    Args:
        plan: Name of the plan.
        names: As :func:`portfolio` takes them; plan files among them are read.
    """
    entry = load_catalogue(_files(names or ())).get(plan)
    return () if entry is None else entry.variants


def read_plan_file(path: str | Path) -> list[CatalogueEntry]:
    """Read the ``[[plans]]`` tables of a TOML file. Components are not looked at.

    Raises:
        ConfigError: If the file is not TOML, holds no plans, or keys or values of plans are wrong; all problems at once.
    """
    return _entries(read_plan_tables(path), Path(path).name)


def _card_entries() -> list[CatalogueEntry]:
    from graftwork.core.cards import load_cards

    entries = []
    for slug, card in load_cards().items():
        entries += _entries([{"system": slug, **plan} for plan in card.plans], f"card {slug}")
    return entries


def load_catalogue(extra_files: Iterable[str | Path] = ()) -> dict[str, CatalogueEntry]:
    """Return all plans by name; plans of ``extra_files`` are in the race by default in their modalities.

    Raises:
        ConfigError: If two plans have one name.
    """
    entries = [*read_plan_file(Path(__file__).with_name("portfolio.toml")), *_card_entries()]
    for file in extra_files:
        entries += [replace(entry, default=entry.plan.modalities) for entry in read_plan_file(file)]
    catalogue: dict[str, CatalogueEntry] = {}
    for entry in entries:
        if entry.plan.name in catalogue:
            raise ConfigError(
                f"Two plans are called {entry.plan.name!r}: in {catalogue[entry.plan.name].origin} and in "
                f"{entry.origin}. Rename one."
            )
        catalogue[entry.plan.name] = entry
    return catalogue


def check_asked(names: Sequence[str] | None, extra: Sequence[Plan], overrides: Mapping[str, Any]) -> None:
    """Check what a run was asked for, before it has a folder: names of plans, plan files, plans handed in, training settings for
    all.

    Args:
        names: As :func:`portfolio` takes them.
        extra: Plans that were handed in as records.
        overrides: Training settings stronger than those of all plans.

    Raises:
        ConfigError: With all problems at once.
    """
    asked = list(names or ())
    problems = [
        f"{Path(file).name}: {problem}" for file in _files(asked) for problem in plan_table_problems(read_plan_tables(file))
    ]
    problems += [f"plan {plan.name!r}: {problem}" for plan in extra for problem in plan_problems(plan)]
    problems += [f"training settings: {problem}" for problem in training_problems(overrides)]
    # A broken file would be reported a second time by the catalogue.
    if not problems:
        catalogue = load_catalogue(_files(asked))
        plain = {name.removeprefix("+") for name in asked if not name.endswith(".toml")} - {"all", "none"}
        problems = [_unknown(name, catalogue) for name in sorted(plain - set(catalogue))]
    if problems:
        raise ConfigError("The run was not begun.", problems)


def check_stored(plans: Iterable[Plan], origin: str) -> None:
    """Check plans of a stored run; those that graftwork itself brings are known to be fine, and nothing is imported for them.

    Args:
        plans: The plans.
        origin: Where they come from, for messages.

    Raises:
        ConfigError: With all problems at once; a :class:`~graftwork.core.errors.ComponentError` if components are refused.
    """
    known = [entry.plan for entry in load_catalogue().values()]
    # Equal records only: a plan whose groups were filled in is checked.
    check_plans([plan for plan in plans if plan not in known], origin)


def unmet_asks(kinds: Collection[str], num_tasks: int, given: Collection[str]) -> dict[str, list[str]]:
    """Return the plans that stay out where all are asked for, by the first thing that they ask for and that is not given.

    Args:
        kinds: Kinds of the suite's inputs.
        num_tasks: Number of its tasks.
        given: What is given; see :func:`graftwork.workflows.plan_asks.given_of`.
    """
    found: dict[str, list[str]] = {}
    for name, entry in _fitting(load_catalogue(), kinds, num_tasks).items():
        if not _enters(entry, kinds, given) and (lacking := [ask for ask in entry.asks if ask not in given]):
            found.setdefault(lacking[0], []).append(name)
    return found


def _enters(entry: CatalogueEntry, kinds: Collection[str], given: Collection[str] | None) -> bool:
    """Return whether a plan enters without being named; that there is no backbone is said of each plan later."""
    return entry.enters(kinds) and set(entry.asks) - {"backbone"} <= set(given or ())


def _fitting(catalogue: Mapping[str, CatalogueEntry], kinds: Collection[str], num_tasks: int) -> dict[str, CatalogueEntry]:
    return {
        name: entry
        for name, entry in catalogue.items()
        if entry.plan.fits(kinds) and entry.plan.min_tasks <= num_tasks and not entry.missing
    }


def portfolio(
    kinds: Collection[str], num_tasks: int, names: Sequence[str] | None = None, given: Collection[str] | None = None
) -> list[Plan]:
    """Return the plans that enter the race, the reference (separate models) first.

    Args:
        kinds: Kinds of the suite's inputs.
        num_tasks: Number of its tasks; plans with a higher ``min_tasks`` stay out.
        names: None for the defaults; or any of plan names, ``"all"`` (whose packages are installed), ``"+name"`` (besides the defaults), and paths of TOML files
            whose plans join the defaults; or only ``"none"``. Separate single-task models are always in: they are what
            everything is measured against.
        given: What there is beside rows and labels. ``"all"`` leaves out plans that ask for anything else, unless they are in by
            default; None leaves out none. Defaults that ask for groups or times are in only where they are given.

    Raises:
        ConfigError: If a name is unknown, or the plan does not fit these inputs or this number of tasks, or needs a package that is not
            installed.
    """
    asked = list(names or ())
    files = _files(asked)
    catalogue = load_catalogue(files)
    fitting = _fitting(catalogue, kinds, num_tasks)
    # Bare names replace the defaults, names with a plus join them.
    exclusive = [name for name in asked if not name.startswith("+") and not name.endswith(".toml")]
    added = [name[1:] for name in asked if name.startswith("+") and not name.endswith(".toml")]
    if "all" in exclusive:
        chosen = {
            name
            for name, entry in fitting.items()
            if given is None or _enters(entry, kinds, given) or set(entry.asks) <= set(given)
        }
    elif exclusive == ["none"]:
        chosen = set()
    elif exclusive:
        # Plans of a file are wanted whatever else was named: why give the file otherwise?
        # By their names: a file of the user may be called like that of graftwork.
        from_files = {entry.plan.name for file in files for entry in read_plan_file(file)}
        chosen = set(exclusive) | (from_files & set(fitting))
    else:
        chosen = {name for name, entry in fitting.items() if _enters(entry, kinds, given)}
    chosen |= set(added)
    problems = [_problem(name, catalogue, kinds, num_tasks) for name in sorted(chosen - set(fitting))]
    if problems:
        raise ConfigError("Some plans cannot enter the race.", problems)
    # Last, so that no choice of names can leave the scale out.
    chosen |= {name for name, entry in fitting.items() if entry.plan.role == "reference" and entry.enters(kinds)}
    plans = [entry.plan for name, entry in fitting.items() if name in chosen]
    # A stable sort: the others keep the order of the catalogue.
    return sorted(plans, key=lambda plan: plan.role != "reference")


def _files(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("+") for name in names if name.endswith(".toml")]


def _problem(name: str, catalogue: dict[str, CatalogueEntry], kinds: Collection[str], num_tasks: int) -> str:
    if name in catalogue:
        plan = catalogue[name].plan
        if not plan.fits(kinds):
            return f"{name!r} is for {', '.join(plan.modalities)}, and the inputs of this suite are: {join_kinds(kinds)}"
        if plan.min_tasks <= num_tasks:
            return f"{name!r} {catalogue[name].missing}"
        return f"{name!r} needs at least {plan.min_tasks} tasks, and this suite has {num_tasks}"
    return _unknown(name, catalogue)


def _unknown(name: str, catalogue: Mapping[str, CatalogueEntry]) -> str:
    near = nearest_name(name, catalogue)
    hint = f"; did you mean {near!r}?" if near else "; graftwork plans lists them"
    return f"there is no plan {name!r}{hint}"
