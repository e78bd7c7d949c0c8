"""Which folders are asked for on the command line when several tuned models are served together. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from graftwork.core.errors import ConfigError, FileFormatError
from graftwork.core.files import read_json

__all__ = ["DELTA_FOLDER", "DeltaFolder", "find_delta_folders", "is_delta_folder", "is_named_delta"]

DELTA_FOLDER = "delta"
"""Name of the folder in a tune run that holds the delta and the heads."""
_FORMAT_START = "graftwork-tuned-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class DeltaFolder:
    """A tuned model, and the name by which it is asked."""

    name: str
    path: Path
    """Holds the delta and the heads."""
    run: Path | None
    """The run that it belongs to; None if it stands alone."""


def is_delta_folder(folder: str | Path) -> bool:
    """Return whether a folder holds a delta and heads, rather than a run."""
    try:
        config = read_json(Path(folder) / "config.json")
    except (FileFormatError, OSError):
        return False
    return isinstance(config, dict) and str(config.get("format", "")).startswith(_FORMAT_START)


def is_named_delta(item: str | Path) -> bool:
    """Return whether a folder is meant to be served from its delta: it holds nothing else, or is given as ``NAME=FOLDER``."""
    name, folder = _split(item)
    return bool(name) or is_delta_folder(folder)


def find_delta_folders(given: Iterable[str | Path]) -> list[DeltaFolder]:
    """Return the tuned models that are meant.

    Args:
        given: Runs of ``graftwork tune``, or folders with a delta; ``NAME=FOLDER`` gives one a name, otherwise it is called as its
            run is.

    Raises:
        ConfigError: If a name is taken twice, or cannot be part of an address.
        FileFormatError: If a folder holds no delta.
    """
    found: list[DeltaFolder] = []
    for item in given:
        name, folder = _split(item)
        if is_delta_folder(folder):
            run = folder.resolve().parent if folder.resolve().name == DELTA_FOLDER else None
            path = folder
        else:
            run, path = folder, folder / DELTA_FOLDER
            if not is_delta_folder(path):
                raise FileFormatError(_no_delta(folder))
        name = name or (run or folder).resolve().name
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"The model in {folder} would be called {name!r}, which cannot be part of an address: letters, digits, '.', '_' and "
                f"'-' can. Give it a name: NAME={folder}."
            )
        if any(other.name == name for other in found):
            raise ConfigError(f"Two models would be called {name!r}. Give one of them another name: NAME={folder}.")
        found.append(DeltaFolder(name, path, run))
    if not found:
        raise ConfigError("No model is named. Give runs of graftwork tune.")
    return found


def _split(item: str | Path) -> tuple[str, Path]:
    text = os.fspath(item)
    name, sign, rest = text.partition("=")
    # A folder may have the sign in its own name.
    if sign and not os.path.isdir(text):
        return name, Path(rest)
    return "", Path(text)


def _no_delta(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} {'is a file, not a folder' if folder.exists() else 'does not exist'}. Give runs of graftwork tune."
    return (
        f"{folder} holds no delta: models that are served together were made by graftwork tune, which writes {DELTA_FOLDER}/ into "
        "its run. Serve other runs alone, one server each."
    )
