"""How a YAML file names models: a path, the name of another document of the file, and either of them with an adapter,
``model+adapter``."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graftwork.core.errors import ConfigError, DataError
from graftwork.core.nearest import did_you_mean
from graftwork.workflows.merge_changes import is_change

__all__ = ["Located", "locate", "reference_text", "stage_of"]

_LONGEST = 4096  # no file system takes a longer path


@dataclass(frozen=True, slots=True)
class Located:
    """Where a reference leads."""

    path: Path
    """File or folder of the model; of a result of another document its name."""
    stage: str = ""
    """Name of the document whose result it is; empty for a model that is there already."""
    adapter: Path | None = None
    """The change that is added to it."""


def reference_text(value: Any) -> str:
    """Return a reference as one text; the long form ``{model: {path: ...}, lora: {path: ...}}`` is written ``model+adapter``.

    Raises:
        ConfigError: If it is neither, or asks for a revision or another architecture.
    """
    if not isinstance(value, Mapping):
        if not isinstance(value, str):
            raise ConfigError(f"must be the path of a model; got {value!r:.60}.")
        return value
    parts = []
    for key in ("model", "lora"):
        part = value.get(key)
        if isinstance(part, Mapping):
            if part.get("revision") is not None:
                raise ConfigError("names a revision of a model on a hub; models are folders on this machine. Leave it out.")
            part = part.get("path")
        if part is None and key == "lora":
            continue
        if not isinstance(part, str):
            raise ConfigError(f"must be the path of a model; got {value!r:.60}.")
        parts.append(part)
    if value.get("override_architecture") is not None:
        raise ConfigError(
            "override_architecture is not supported: tensors are known by their names, whatever the architecture. Leave it out."
        )
    return "+".join(parts)


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """Yield a model and an adapter for every ``+`` of a reference; paths may hold some of their own."""
    for place, letter in enumerate(name[:_LONGEST]):
        if letter == "+" and name[:place] and name[place + 1 :]:
            yield name[:place], name[place + 1 :]


def stage_of(name: str, stages: Collection[str]) -> str:
    """Return the document whose result a reference is, or is a change of; empty if there is none.

    Args:
        name: The reference.
        stages: Names of all documents. They count before paths, as in mergekit.

    Example:
        >>> stage_of("first+adapter", ["first"]), stage_of("first", ["first"]), stage_of("models/first", ["first"])
        ('first', 'first', '')
    """
    if name in stages:
        return name
    return next((model for model, _ in _splits(name) if model in stages), "")


def locate(name: str, home: Path, stages: Collection[str], where: str, *, whole: bool = True) -> Located:
    """Find what a reference leads to; nothing is read but what tells a model from a change of one.

    Args:
        name: The reference.
        home: The file; paths are looked for from here and from its folder.
        stages: Names of the documents whose results may be used.
        where: File and line, for messages.
        whole: Whether it must be a whole model; an adapter may bring a tokenizer.

    Raises:
        DataError: If nothing is there.
        ConfigError: If a change stands where a model must, or the other way round.
        FileFormatError: If a file cannot be read.
    """
    found, adapter, lost = _model(name, home, stages), None, ""
    for model, change in () if found else _splits(name):
        found, adapter = _model(model, home, stages), _there(change, home)
        if found and adapter:
            break
        lost = change if found else lost
        found = None
    if found is None and lost:
        raise DataError(
            f"{where}: there is no adapter at {lost:.200}, neither from here nor from the folder of the file. It stands behind a +, "
            "and what stands before it is there. Give the folder of an adapter that is here."
        )
    if found is None:
        near = did_you_mean(name, stages) if stages else ""
        raise DataError(
            f"{where}: there is no model at {name:.200}, neither from here nor from the folder of the file"
            f"{', nor a document of this name' if stages else ''}.{near} Names on a hub are not downloaded: give the folder of a model "
            "that is here."
        )
    if whole and not found.stage and is_change(found.path):
        raise ConfigError(
            f"{where}: {found.path} is a change of a base (an adapter or a delta) and no whole model. Put its base before it: "
            f"base+{found.path}."
        )
    if adapter is not None and not is_change(adapter):
        raise ConfigError(
            f"{where}: {adapter} stands behind a +, where an adapter or a delta is added to a model, but it is none. Name it as a model "
            "of its own."
        )
    return Located(found.path, found.stage, adapter)


def _model(name: str, home: Path, stages: Collection[str]) -> Located | None:
    if name in stages:
        return Located(Path(name), name)
    path = _there(name, home)
    return None if path is None else Located(path)


def _there(name: str, home: Path) -> Path | None:
    # Not the question of Path, which raises where a name is too long for the file system.
    return next((path for path in (Path(name), home.parent / name) if os.path.exists(path)), None)
