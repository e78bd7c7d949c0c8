"""Folders that several arms of a seed share: filled once, whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from graftwork.core.files import write_json
from graftwork.core.folders import remove_own

__all__ = ["fill_folder"]


def fill_folder(folder: Path, build: Callable[[Path], None], note: Callable[[], Mapping[str, Any]]) -> None:
    """Fill a folder that is then whole or absent: built beside its place, the note last, then renamed.

    Args:
        folder: Where it goes.
        build: Fills the empty folder it is given.
        note: Returns what is written beside it, as ``guard.json``.
    """
    building = folder.with_name(f".{folder.name}.building")
    # What a killed build left.
    remove_own(building.parent, building.name)
    building.mkdir(parents=True)
    try:
        build(building)
        write_json(building / "guard.json", note())
        # What is there has no note, so it was never finished; it would block the rename.
        remove_own(folder.parent, folder.name)
        building.rename(folder)
    finally:
        remove_own(building.parent, building.name)
