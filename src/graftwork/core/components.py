"""Components: classes named by dotted path in plans, run folders and model descriptions, and the rule which of them may be
imported.

Files come from anywhere, and importing a module runs it. So a path is looked at before anything is imported: modules of
``graftwork`` are resolved, and modules of packages that the user allows by name. What is found must implement the seam that was
asked for. Nothing that a file says can widen the rule:

- on the command line: ``--allow-components PACKAGE``;
- in Python: :func:`allow_components` for the rest of the process, :func:`components_allowed` for a ``with`` block, or the
  argument ``allow_components`` of :func:`graftwork.fit` and :func:`graftwork.compare`;
- for installed packages: an entry point of the group ``graftwork.components`` whose value is a package or module.

The allowed names are those of the process. Worker processes get them from their parent, never from a run folder.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from graftwork.core.errors import ComponentError, ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = ["GROUP", "Component", "allow_components", "allowed_packages", "component_of", "components_allowed"]

GROUP = "graftwork.components"
"""Entry point group of installed packages that bring components."""
_OWN = "graftwork"
_SEAMS = "graftwork.interfaces."
_FORM = "A component path looks like 'package.module:Name', without dots or underscores at the start of a part"

_allowed: list[str] = []
"""Packages that this process allows; a name may be in it twice, once for each ``with`` block that allows it."""
_functions: dict[Any, type] = {}
"""Functions that build components, and the seam of what they return."""

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


def component_of(seam: type) -> Callable[[AnyFunction], AnyFunction]:
    """Mark a function as one that plans may name where an object of ``seam`` is asked for; classes need no mark.

    Args:
        seam: Abstract class of :mod:`graftwork.interfaces` that the returned object implements.
    """

    def mark(function: AnyFunction) -> AnyFunction:
        _functions[function] = seam
        return function

    return mark


def allow_components(*packages: str) -> None:
    """Allow components of further packages for the rest of this process.

    Args:
        packages: Importable names, ``"my_methods"`` (with everything in it) or ``"my_methods.sharing"`` (with what is below it).

    Raises:
        ConfigError: If one is no name of a package.
    """
    _allowed.extend(_checked(packages))


@contextmanager
def components_allowed(packages: str | Iterable[str] | None) -> Iterator[None]:
    """Allow components of further packages inside a ``with`` block, for all threads of the process.

    Args:
        packages: Names as :func:`allow_components` takes them, one or several; None allows nothing more.

    Raises:
        ConfigError: If one is no name of a package.
    """
    names = _checked([packages] if isinstance(packages, str) else packages or ())
    _allowed.extend(names)
    try:
        yield
    finally:
        for name in names:
            _allowed.remove(name)


def allowed_packages() -> tuple[str, ...]:
    """Return the packages that this process allows besides ``graftwork`` and those with entry points, for a worker process."""
    return tuple(dict.fromkeys(_allowed))


def _checked(packages: Iterable[str]) -> list[str]:
    names = list(packages)
    for name in names:
        if not isinstance(name, str) or not _is_dotted(name):
            raise ConfigError(
                f"Components are allowed by the name of an importable package, as in my_methods or "
                f"my_methods.sharing; got {name!r}."
            )
    return names


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() and not part.startswith("_") for part in name.split("."))


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@functools.cache
def _installed_packages() -> tuple[str, ...]:
    from importlib import metadata

    names = (point.value.partition(":")[0].strip() for point in metadata.entry_points(group=GROUP))
    # A malformed entry point of some installed package is passed over: it must not stop every command.
    return tuple(name for name in names if _is_dotted(name))


@dataclass(frozen=True, slots=True)
class Component:
    """A class and the settings to build it with, as plain data: plans and cards hold these, never classes.

    Example:
        >>> Component("os:system", {"command": "true"}).problem()
        "the package 'os' is not allowed to bring components"
    """

    path: str
    """Dotted path ``package.module:Name``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments, JSON values only."""

    def problem(self) -> str:
        """Return in a few words why the path may not be imported; empty if it may. Nothing is imported to find out."""
        module, separator, name = self.path.partition(":")
        if not separator or not name.isidentifier() or name.startswith("_") or not _is_dotted(module):
            return "it has not the form package.module:Name"
        if not _is_within(module, (_OWN, *_allowed)) and not _is_within(module, _installed_packages()):
            return f"the package {module.partition('.')[0]!r} is not allowed to bring components"
        return ""

    def check(self) -> None:
        """Refuse a path that may not be imported.

        Raises:
            ComponentError: If the path is malformed, or its package is neither graftwork nor allowed.
        """
        if not self.problem():
            return
        module = self.path.partition(":")[0]
        if self.problem().startswith("it has not"):
            raise ComponentError(f"{_FORM}; got {self.path!r}. Nothing was imported.")
        package = module.partition(".")[0]
        raise ComponentError(
            f"The component {self.path!r} is not part of graftwork, and its package is not allowed, so it was not imported: "
            f"importing runs code. If you know who wrote {package!r}, allow it by name: --allow-components {package} on the "
            "command line, "
            f'allow_components=["{package}"] in Python, or an entry point of the group {GROUP!r} in the package.'
        )

    def resolve(self, seam: type | None = None) -> Any:
        """Import and return the named class or function.

        Args:
            seam: Abstract class that what is built must implement; None takes a component of any seam of
                :mod:`graftwork.interfaces`.

        Raises:
            ComponentError: If the path may not be imported (nothing is, then), nothing is there, or it is no component of the
                seam.
        """
        self.check()
        module, _, name = self.path.partition(":")
        try:
            loaded = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not _is_within(module, (error.name,)):
                raise  # the module is there, and something that it imports is missing
            raise ComponentError(f"{_no_module(error.name)} Component path: {self.path!r}.") from error
        try:
            found = getattr(loaded, name)
        except AttributeError as error:
            hint = did_you_mean(name, [item for item in vars(loaded) if not item.startswith("_")])
            raise ComponentError(f"There is no {name!r} in {module!r}.{hint} Component path: {self.path!r}.") from error
        _check_seam(self.path, found, seam)
        return found

    def build(self, *args: Any, seam: type | None = None, **runtime: Any) -> Any:
        """Build the object from its settings and the runtime objects handed in.

        Args:
            args: Positional arguments.
            seam: See :meth:`resolve`.
            runtime: Keyword arguments; stronger than settings of the same name.

        Raises:
            ComponentError: See :meth:`resolve`; also if a function returned something else than it was registered for.
        """
        built = self.resolve(seam)(*args, **{**dict(self.settings), **runtime})
        # Classes were checked before; a marked function shows only now what it really returns.
        if seam is not None and not isinstance(built, seam):
            raise ComponentError(f"The component {self.path!r} built a {type(built).__name__}, which is no {seam.__name__}.")
        return built

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {"path": self.path, "settings": dict(self.settings)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | str) -> Self:
        """Read :meth:`to_json`'s object, or a bare path. The path is not resolved.

        Raises:
            ConfigError: If it is neither a text nor an object with a text ``path`` and an object ``settings``.
        """
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping) or not isinstance(value.get("path"), str) or set(value) - {"path", "settings"}:
            raise ConfigError(
                f"A component is a text 'package.module:Name', or an object with the keys path and settings; got {value!r:.200}."
            )
        settings = value.get("settings", {})
        if not isinstance(settings, Mapping):
            raise ConfigError(f"The settings of the component {value['path']!r} must be an object; got {settings!r:.200}.")
        return cls(value["path"], dict(settings))


def _no_module(missing: str) -> str:
    """Say that a module is missing, and which one beside it has nearly the same name; nothing more is imported."""
    # The parent was imported on the way to the missing module, so looking at its folder runs nothing new.
    parent = missing.rpartition(".")[0]
    folders = getattr(sys.modules.get(parent), "__path__", ())
    beside = [f"{parent}.{module.name}" for module in pkgutil.iter_modules(folders)]
    return f"There is no module {missing!r}.{did_you_mean(missing, beside)}"


def _check_seam(path: str, found: Any, seam: type | None) -> None:
    """Refuse what was not written to stand in a plan: helpers, records, functions that do something when called."""
    asked = f"component of the seam {seam.__name__}" if seam is not None else "component of any seam"
    if inspect.isclass(found):
        if not (issubclass(found, seam) if seam is not None else _implements_a_seam(found)):
            raise ComponentError(f"{path!r} is no {asked}: the class does not derive from {_named(seam)}.")
        if inspect.isabstract(found):
            missing: frozenset[str] = vars(found).get("__abstractmethods__", frozenset())
            raise ComponentError(f"{path!r} cannot be built: it does not implement {', '.join(sorted(missing))}.")
        return
    # Anything can stand under a name, and the lookup would fail for what cannot be hashed.
    registered = _functions.get(found) if inspect.isroutine(found) else None
    if registered is None or (seam is not None and not issubclass(registered, seam)):
        raise ComponentError(
            f"{path!r} is no {asked}: it must be a class derived from {_named(seam)}, or a function marked with "
            "graftwork.core.components.component_of."
        )


def _implements_a_seam(found: type) -> bool:
    # Abstract ones only: the modules of interfaces also hold records, and deriving from those makes no component.
    return any(base.__module__.startswith(_SEAMS) and inspect.isabstract(base) for base in found.__mro__)


def _named(seam: type | None) -> str:
    return f"{seam.__module__}.{seam.__name__}" if seam is not None else "a class of graftwork.interfaces"
