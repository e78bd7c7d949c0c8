"""Which kinds of input exist: found by name, one module a kind in :mod:`graftwork.data.inputs`, none of them named here.

What a kind is made of stands on several floors (an encoder without torch, a trunk with it, a reader of requests), so its record
holds dotted paths that are imported where they are needed.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean

__all__ = ["PACKAGE", "InputKind", "input_kind", "input_kind_names", "join_kinds", "load_part", "register_input_kind"]

PACKAGE = "graftwork.data.inputs"
"""Every module in it is a kind of its name and calls its record ``KIND``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputKind:
    """Everything that belongs to one kind of input."""

    name: str
    noun: str
    """What the rows are called in reports: ``pictures``."""
    example: str
    """What a user predicts from, for command lines that are shown: ``pictures/``."""
    encoder: str
    """``module:Class`` of the :class:`~graftwork.data.encoders.base.Encoder`; no torch."""
    trunk: str
    """``module:function`` of the own, untrained trunk: ``function(sizes, dense=False) -> Backbone``; ``dense`` asks for a map of
    features, of series for one token a step."""
    trunk_summary: str
    """One line about the trunk, for ``graftwork backbones``."""
    reader: str
    """``module:Class`` of the :class:`~graftwork.serving.reading.RowReader` of requests; no torch."""
    batch_size: int = 64
    """Rows of a training step from scratch."""
    positions: bool = False
    """Whether the positions of its arrays mean something by themselves, as the columns of a table do; if not, an input is one
    thing."""
    tuned_rate: float = 0.3
    """Learning rate of a pretrained trunk of which nearly all parameters learn, relative to that of new parts."""
    predicted_rows: int = 256
    """Rows of a batch of predictions: large enough that the cost per call does not count, small enough that activations stay in
    memory."""


_registered: dict[str, InputKind] = {}


def register_input_kind(kind: InputKind) -> None:
    """Add a kind that lives outside :data:`PACKAGE`. Every process that reads such suites has to do so.

    Raises:
        ConfigError: If another kind has its name.
    """
    # The same record again is no error: a module that registers may run twice.
    if kind.name in _module_names() or _registered.get(kind.name, kind) != kind:
        raise ConfigError(f"There is an input kind {kind.name!r} already. Choose another name.")
    _registered[kind.name] = kind


def _module_names() -> list[str]:
    package = importlib.import_module(PACKAGE)
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def input_kind_names() -> tuple[str, ...]:
    """Return the names of all kinds."""
    return (*_module_names(), *sorted(_registered))


def input_kind(name: str) -> InputKind:
    """Return a kind by its name.

    Raises:
        ConfigError: If there is none of this name.
    """
    if name in _registered:
        return _registered[name]
    known = input_kind_names()
    if name not in known:
        raise ConfigError(f"There is no input kind {name!r}; there are {', '.join(known)}.{did_you_mean(str(name), known)}")
    kind: Any = importlib.import_module(f"{PACKAGE}.{name}").KIND
    assert kind.name == name, f"{PACKAGE}.{name}.KIND must be called {name!r}"
    return kind


def load_part(path: str) -> Any:
    """Import what a dotted path of a kind (``module:name``) names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def join_kinds(kinds: Iterable[str]) -> str:
    """Return kinds in one word, each once: ``"table + text"``."""
    return " + ".join(dict.fromkeys(kinds))
