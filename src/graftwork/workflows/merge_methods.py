"""Which methods ``graftwork merge`` has, found by their descriptions: cards of the room ``merging``, and ``mergers.toml`` beside
this module.

A new merger edits no existing file: its card names the class among its ``components`` and the seam (``Merger`` or
``ModelMerger``) among its ``seams``; slug and ``aliases`` are what ``--method`` takes, and the keywords of the class are its
settings.
"""

from __future__ import annotations

import importlib
import inspect
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.core.cards import Card, read_card
from graftwork.core.components import Component
from graftwork.core.errors import ConfigError
from graftwork.core.settings import build_from_settings, settings_of
from graftwork.core.source_hash import PACKAGE_FOLDER
from graftwork.core.tensor_files import TensorSource, open_tensors
from graftwork.data.names import did_you_mean
from graftwork.interfaces.merger import Merger
from graftwork.interfaces.model_merger import ModelMerger

__all__ = ["MergeMethod", "build_merger", "find_merge_method", "merge_methods"]

_SEAMS = ("Merger", "ModelMerger")
_FLAGS = {"scaling": "--lambda"}  # settings whose flag has another name


@dataclass(frozen=True, slots=True)
class MergeMethod:
    """One method, described but not imported yet."""

    name: str
    summary: str
    components: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    contract: Mapping[str, Any] = field(default_factory=dict)
    """Small constructor arguments for the contract tests, by class name."""
    presets: Mapping[str, Any] = field(default_factory=dict)
    """Settings that this name stands for; what is given besides counts more."""
    seams: tuple[str, ...] = ("Merger",)
    """``Merger`` needs weights only; ``ModelMerger`` may need data, networks or files beside the models."""

    def resolve(self) -> type[Merger] | type[ModelMerger]:
        """Import and return the class.

        Raises:
            ConfigError: If no component is a merger.
        """
        for path in self.components:
            # Before the import: the path may name any package.
            Component(path).check()
            module, _, name = path.partition(":")
            found = getattr(importlib.import_module(module), name, None)
            if inspect.isclass(found) and issubclass(found, Merger | ModelMerger):
                Component(path).resolve()
                return found
        raise ConfigError(
            f"The merge method {self.name!r} names no class that is a {' or '.join(_SEAMS)}: {', '.join(self.components)}."
        )


def merge_methods(cards: Mapping[str, Card] | None = None) -> dict[str, MergeMethod]:
    """Return all methods by name. Nothing of them is imported.

    Args:
        cards: Cards to look at; those of the package by default.

    Raises:
        ConfigError: If two methods share a name.
    """
    content = tomllib.loads(Path(__file__).with_name("mergers.toml").read_text(encoding="utf-8"))
    found = [
        MergeMethod(
            entry["slug"],
            entry["summary"],
            tuple(entry["components"]),
            tuple(entry["aliases"]),
            entry.get("contract", {}),
            entry.get("presets", {}),
            tuple(entry["seams"]),
        )
        for entry in content["mergers"]
    ]
    for card in (_merging_cards() if cards is None else cards).values():
        if card.room == "merging" and card.components and set(card.seams) & set(_SEAMS):
            found.append(MergeMethod(card.slug, card.summary, card.components, card.aliases, card.contract, seams=card.seams))
    taken: dict[str, str] = {}
    for method in found:
        for name in (method.name, *method.aliases):
            if name in taken:
                raise ConfigError(f"The merge methods {taken[name]!r} and {method.name!r} share the name {name!r}. Rename one.")
            taken[name] = method.name
    return {method.name: method for method in sorted(found, key=lambda method: method.name)}


def _merging_cards(folder: Path = PACKAGE_FOLDER / "cards") -> dict[str, Card]:
    """Return the cards of the room by slug. Only files that name it are parsed: all of them take as long as a small merge."""
    files = [file for file in sorted(folder.glob("*.toml")) if b"merging" in file.read_bytes()]
    return {card.slug: card for card in map(read_card, files) if card.room == "merging"}


def find_merge_method(name: str, cards: Mapping[str, Card] | None = None) -> MergeMethod:
    """Return a method by its name or alias, or by the dotted path ``package.module:Name`` of a class in an allowed package.

    Raises:
        ConfigError: If there is none.
        ComponentError: If the package of a dotted path is not allowed (see :mod:`graftwork.core.components`).
    """
    # A dotted path needs no description; its class is found when it is resolved.
    if ":" in name:
        Component(name).check()
        return MergeMethod(name, "", (name,))
    methods = merge_methods(cards)
    names = {other: method for method in methods.values() for other in (method.name, *method.aliases)}
    if name not in names:
        raise ConfigError(
            f"Unknown merge method {name!r}. Methods: {', '.join(methods)}.{did_you_mean(name, names)} "
            "Systems of the room merging without code are planned; graftwork systems --room merging lists them."
        )
    return names[name]


def build_merger(
    method: str,
    *,
    density: float | None = None,
    scaling: float | None = None,
    weights: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    from_text: bool = False,
    seed: int = 0,
    cards: Mapping[str, Card] | None = None,
) -> Merger | ModelMerger:
    """Build a merger by name.

    Args:
        method: See :func:`find_merge_method`.
        density: Share of changes kept, for methods with this setting.
        scaling: Factor on the merged change, for methods with this setting.
        weights: Weight of each model, for methods with this setting.
        settings: Any settings of the class by name.
        from_text: Whether ``settings`` are texts of the command line.
        seed: For methods with this setting, unless it is among ``settings``; others draw nothing, or from the seed of the merge.
        cards: See :func:`merge_methods`.

    Raises:
        ConfigError: If the method is unknown, or settings are unknown, missing, given twice or of another type; all problems at
            once.
    """
    found = find_merge_method(method, cards)
    cls = found.resolve()
    given = {key: value for key, value in (("density", density), ("scaling", scaling), ("weights", weights)) if value is not None}
    available = settings_of(cls)
    for key in given:
        flag = _FLAGS.get(key, f"--{key}")
        if key in (settings or {}):
            raise ConfigError(f"`{key}` is given twice, as {flag} and among the settings. Keep one.")
        if key not in available:
            # Imports every method, for the message alone.
            owners = [other.name for other in merge_methods(cards).values() if key in settings_of(other.resolve())]
            choice = f", or use --method {owners[0]}" if len(owners) == 1 else ", or use one of these methods" if owners else ""
            raise ConfigError(
                f"`{key}` belongs to {', '.join(owners) or 'no method'}, not to {found.name}. Leave {flag} out{choice}."
            )
    draws = {"seed": seed} if seed and "seed" in available else {}
    values = {**found.presets, **draws, **given, **(settings or {})}
    return build_from_settings(cls, values, name=found.name, from_text=from_text, converters={TensorSource: open_tensors})
