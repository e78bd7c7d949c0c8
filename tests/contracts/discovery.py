"""What implements a seam, found through the cards and the catalogue of plans and never listed; and what its constructor must
refuse."""

from __future__ import annotations

import functools
import importlib
import inspect
import tomllib
import typing
from collections.abc import Iterator
from importlib import resources
from types import UnionType
from typing import Any, Literal, Union

from graftwork.core.records import Component, Plan
from graftwork.workflows.portfolio import load_catalogue

__all__ = ["documents", "found", "named", "plan_of", "plans", "wrong_settings"]


@functools.cache
def documents() -> list[dict[str, Any]]:
    """Return the catalogue of plans and all cards."""
    files = [resources.files("graftwork.workflows") / "portfolio.toml"]
    files += [item for item in resources.files("graftwork.cards").iterdir() if item.name.endswith(".toml")]
    return [tomllib.loads(item.read_text(encoding="utf-8")) for item in files]


@functools.cache
def plans() -> list[Plan]:
    """Return every plan of the catalogue and the cards."""
    return [entry.plan for entry in load_catalogue().values()]


def found(seam: type) -> dict[str, Component]:
    """Return the classes of a seam by name, with the small settings that their card gives for contract tests (or those of a
    plan)."""
    components = {}
    for plan in plans():
        for _, _, component in plan.components():
            components.setdefault(component.path, component)
    small: dict[str, dict[str, Any]] = {}
    for document in documents():
        for path in document.get("components", []):
            components.setdefault(path, Component(path))
        small |= document.get("contract", {})
    fitting = {}
    for path, component in components.items():
        cls = named(path)
        if isinstance(cls, type) and issubclass(cls, seam):
            name = path.rpartition(":")[2]
            fitting[name] = Component(path, small[name]) if name in small else component
    return fitting


def plan_of(path: str) -> Plan | None:
    """Return the first plan that names a component, if any does."""
    return next((plan for plan in plans() if path in {component.path for _, _, component in plan.components()}), None)


def named(path: str) -> Any:
    """Return what a dotted path of a card or plan names: a component, or a layer, a loss, a generator of data."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def wrong_settings(component: Component) -> Iterator[dict[str, Any]]:
    """Yield settings that a constructor must refuse: one that it does not have, no number for a number, an unknown word for one
    of several."""
    cls = named(component.path)
    yield {"no_such_setting": 1}
    hints = typing.get_type_hints(cls.__init__)
    for name in inspect.signature(cls).parameters:
        kinds = _alternatives(hints.get(name))
        if float in kinds:
            yield {name: float("nan")}
        if any(typing.get_origin(kind) is Literal for kind in kinds) and str not in kinds:
            yield {name: "no such word"}


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, UnionType) else (hint,)
