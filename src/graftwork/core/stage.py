"""A stage: one step of a plan (training, say), with the components that it is made of in typed places.

A kind of stage is a frozen dataclass in a module of its own in :mod:`graftwork.core.stages`. A field whose metadata come
from :func:`place` holds components; everything else is plain settings. Which seam a component must implement, and what the
workflow hands to its constructor, is written beside the field, so that a plan can be checked before anything runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.nearest import did_you_mean
from graftwork.core.settings import build_from_settings, converted_value

__all__ = ["Place", "Stage", "place"]


@dataclass(frozen=True, slots=True)
class Place:
    """What must stand in a field of a stage."""

    seam: str
    """Module of :mod:`graftwork.interfaces` and class, as in ``"balancer:Balancer"``."""
    positional: int = 0
    """Number of arguments that the workflow hands to the constructor by position."""
    keywords: tuple[str, ...] = ()
    """Names of the arguments that it hands over by keyword."""
    many: bool = False
    """Whether the field holds a tuple of components."""
    from_settings: bool = False
    """Whether settings are those of :mod:`graftwork.core.settings`: fields of a dataclass that the constructor takes are settings
    themselves."""

    is_model: bool = False
    """Whether what is built is a network: a check looks at its settings and does not build it."""

    @property
    def is_plain(self) -> bool:
        """Whether the component is built from its settings alone, and at no cost."""
        return not self.positional and not self.keywords and not self.is_model

    def build(self, component: Component, *args: Any, **runtime: Any) -> Any:
        """Build a component that stands here, from its settings and what the workflow hands in.

        Raises:
            ComponentError: If it may not be imported or does not implement the seam.
            ConfigError: If a setting cannot be used.
        """
        if not self.from_settings:
            return component.build(*args, seam=self.load_seam(), **runtime)
        return build_from_settings(component.resolve(self.load_seam()), component.settings, name=component.path)

    def load_seam(self) -> type:
        """Import and return the abstract class; torch comes with most of them."""
        module, _, name = self.seam.partition(":")
        seam: type = getattr(importlib.import_module(f"graftwork.interfaces.{module}"), name)
        return seam


def place(
    seam: str,
    *,
    positional: int = 0,
    keywords: tuple[str, ...] = (),
    many: bool = False,
    from_settings: bool = False,
    is_model: bool = False,
) -> dict[str, Place]:
    """Return the ``metadata`` of a dataclass field that holds components; see :class:`Place`."""
    return {"place": Place(seam, positional, keywords, many, from_settings, is_model)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One step of a plan. Subclasses add fields; all of them have defaults."""

    kind: ClassVar[str] = ""
    """Name of the kind: that of its module in :mod:`graftwork.core.stages`, and of the one in :mod:`graftwork.training.stages`
    that runs it."""
    follows: ClassVar[bool] = True
    """Whether it works on what the stages before it made, so that it cannot be the first; one that does not must be the first."""

    @classmethod
    def places(cls) -> dict[str, Place]:
        """Return the fields that hold components."""
        return {item.name: item.metadata["place"] for item in dataclasses.fields(cls) if "place" in item.metadata}

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return the keys that a stage of this kind has in a file, ``kind`` aside."""
        return tuple(item.name for item in dataclasses.fields(cls))

    def components(self) -> Iterator[tuple[str, Place, Component]]:
        """Yield every component with the name of its field and what must stand there."""
        for name, what in self.places().items():
            held = getattr(self, name)
            for component in held if what.many else (held,):
                if component is not None:
                    yield name, what, component

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`read` takes back."""
        found: dict[str, Any] = {"kind": self.kind}
        for item in dataclasses.fields(self):
            held = getattr(self, item.name)
            if "place" in item.metadata:
                found[item.name] = (
                    [component.to_json() for component in held]
                    if item.metadata["place"].many
                    else (held.to_json() if held is not None else None)
                )
            else:
                found[item.name] = dict(held) if isinstance(held, Mapping) else held
        return found

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> tuple[Self, list[str]]:
        """Read :meth:`to_json`'s object.

        Returns:
            The stage, with defaults where a value cannot be read; and all problems.
        """
        problems: list[str] = []
        fields: dict[str, Any] = {}
        known, places = cls.keys(), cls.places()
        for key, item in value.items():
            if key == "kind":
                continue
            if key not in known:
                problems.append(f"unknown key {key!r}.{did_you_mean(key, known)} Known keys: {', '.join(sorted(known))}")
                continue
            try:
                fields[key] = _read_field(key, item, places.get(key), cls)
            except ConfigError as error:
                problems.append(f"{key}: {error}")
        stage = cls(**fields)
        return stage, [*problems, *stage.problems()]

    def problems(self) -> list[str]:
        """Return what is wrong with values that are fine each by itself."""
        return []


def _read_field(key: str, item: Any, what: Place | None, cls: type[Stage]) -> Any:
    default = next(field for field in dataclasses.fields(cls) if field.name == key)
    if what is None:
        # Free settings belong to another class, which checks them; their values are not converted here.
        is_mapping = default.default_factory is dict
        if is_mapping and not isinstance(item, Mapping):
            raise ConfigError(f"takes an object of names and values; got {item!r:.200}")
        return dict(item) if is_mapping else converted_value(item, typing.get_type_hints(cls)[key])
    if what.many:
        if not isinstance(item, list | tuple):
            raise ConfigError(f"takes a list of components; got {item!r:.200}")
        return tuple(Component.from_json(one) for one in item)
    if item is None:
        if default.default is not None:
            raise ConfigError("takes a component; leave the key out for the default")
        return None
    return Component.from_json(item)
