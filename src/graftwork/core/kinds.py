"""Which task kinds exist: found by name, one module a kind, none of them imported here by name.

``TaskSpec`` checks its kind wherever it is made, and core stands on the lowest floor. So this registry knows the package that
holds the kinds as a dotted path only (as plans know their components), imports it when the first task is made, and keeps what
each module calls ``KIND``. What a kind must offer is :class:`graftwork.interfaces.task_kind.TaskKind`; core itself asks for
little of it.
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = [
    "PACKAGE",
    "POSITIONS",
    "KindFacts",
    "all_kinds",
    "find_kind",
    "kind_names",
    "old_name",
    "register_kind",
    "resolve_kind",
    "row_modules",
]

PACKAGE = "graftwork.tasks.kinds"
"""Every module in it is a kind of its name, bar those whose names begin with an underscore; kinds over positions add
``_positions``."""
_OVER_POSITIONS = "_positions"
POSITIONS = ("pixels", "points", "steps", "nodes")
"""What a task may ask one answer each for, in place of one a row."""


class KindFacts(Protocol):
    """What core asks of a kind; ``spec`` is a :class:`~graftwork.core.records.TaskSpec`."""

    @property
    def name(self) -> str:
        """What ``TaskSpec.kind`` holds."""

    @property
    def over_positions(self) -> bool:
        """Whether it answers at every position of a row. A name may have two modules, one for rows and one for positions."""

    @property
    def aliases(self) -> Mapping[str, str]:
        """Older names, each with the positions that it stands for (empty for rows)."""

    def num_outputs(self, spec: Any) -> int:
        """Return the width of the head."""

    def problems(self, spec: Any) -> Sequence[str]:
        """Return what is wrong with a task of this kind."""


_found: dict[tuple[str, bool], KindFacts] = {}
_modules: set[str] = set()
"""Modules of :data:`PACKAGE` that have been read; those that were added later are found when a name is not."""
_lock = threading.RLock()
"""Held while modules are read: a second thread waits for all of them."""
_is_read = threading.Event()


def register_kind(kind: KindFacts) -> None:
    """Add a kind that lives outside :data:`PACKAGE`. Every process that reads such tasks has to do so.

    Raises:
        ConfigError: If another kind has its name or one of its aliases.
    """
    all_kinds()  # the package's own first, so that the new one is refused here and not they later
    _add(kind)


def _add(kind: KindFacts) -> None:
    key = (kind.name, kind.over_positions)
    known = _found.get(key)
    if known is not None and type(known) is not type(kind):
        raise ConfigError(f"There is a task kind {kind.name!r} already ({type(known).__qualname__}). Choose another name.")
    others = {alias: other for other in _found.values() if other is not known for alias in (other.name, *other.aliases)}
    taken = [alias for alias in kind.aliases if alias in others]
    if taken or any(kind.name in other.aliases for other in _found.values()):
        raise ConfigError(f"The task kind {kind.name!r} takes a name that another kind has: {', '.join(taken) or kind.name}.")
    _found[key] = kind


def all_kinds() -> tuple[KindFacts, ...]:
    """Return all kinds that are known."""
    if not _is_read.is_set():
        _read_package()
    return tuple(_found.values())


def row_modules() -> tuple[str, ...]:
    """Return the names of the package's kinds that give one answer a row, read from its file names: nothing but the standard
    library."""
    package = importlib.import_module(PACKAGE)
    return tuple(name for name in _module_names(package) if not name.endswith(_OVER_POSITIONS))


def _module_names(package: ModuleType) -> list[str]:
    return [item.name for item in pkgutil.iter_modules(package.__path__) if not item.name.startswith("_")]


def _read_package() -> None:
    """Import the modules of the package that have not been read yet."""
    package = importlib.import_module(PACKAGE)
    with _lock:
        for name in _module_names(package):
            if name not in _modules:
                kind: KindFacts = importlib.import_module(f"{PACKAGE}.{name}").KIND
                expected = kind.name + (_OVER_POSITIONS if kind.over_positions else "")
                if name != expected:
                    raise ImportError(
                        f"The module {PACKAGE}.{name} holds the task kind {kind.name!r}; it must be called {expected}."
                    )
                # Marked as read only afterwards: a module that fails is tried, and fails, again.
                _add(kind)
                _modules.add(name)
        _is_read.set()


def kind_names(*, over_positions: bool | None = None) -> tuple[str, ...]:
    """Return the names of all kinds, of rows or of positions only if asked."""
    names = (kind.name for kind in all_kinds() if over_positions is None or kind.over_positions is over_positions)
    return tuple(dict.fromkeys(names))


def find_kind(name: str, positions: str = "") -> KindFacts:
    """Return the kind of a task, by names that :func:`resolve_kind` gave."""
    # Without lock and search, since every property of a task asks for its kind.
    found = _found.get((name, bool(positions)))
    return _searched(name, positions) if found is None else found


def _searched(name: str, positions: str) -> KindFacts:
    name, positions = resolve_kind(name, positions)
    return _found[name, bool(positions)]


def resolve_kind(name: str, positions: str = "") -> tuple[str, str]:
    """Return the kind's own name and its positions; an alias such as ``dense_binary`` says both.

    Raises:
        ConfigError: If there is no such kind, with the nearest name, or not for these positions.

    Example:
        >>> resolve_kind("dense_binary")
        ('binary', 'pixels')
    """
    if positions and positions not in POSITIONS:
        raise ConfigError(f"positions must be one of {', '.join(POSITIONS)}, or empty for one answer a row; got {positions!r}.")
    if (name, bool(positions)) in _found:
        return name, positions
    _read_package()  # a module may be new
    if (name, bool(positions)) in _found:
        return name, positions
    kinds = all_kinds()
    for kind in kinds:
        # An alias says its positions itself; others beside it contradict it.
        if name in kind.aliases and positions in ("", kind.aliases[name]):
            return kind.name, kind.aliases[name]
    # The name exists, but only for the other of rows and positions.
    if (name, not positions) in _found:
        needed = f"gives one answer a row, not one for each of its {positions}" if positions else "needs positions"
        raise ConfigError(f"kind {name!r} {needed}; positions may be one of {', '.join(POSITIONS)}, or empty.")
    names = kind_names()
    aliases = [alias for kind in kinds for alias in kind.aliases]
    raise ConfigError(f"kind must be one of {', '.join(names)}; got {name!r}.{did_you_mean(name, [*names, *aliases])}")


def old_name(name: str, positions: str) -> str:
    """Return the one word that stands for a kind over these positions, its alias if it has one: fingerprints were made of it."""
    aliases = find_kind(name, positions).aliases
    return next((alias for alias, at in aliases.items() if at == positions), name)
