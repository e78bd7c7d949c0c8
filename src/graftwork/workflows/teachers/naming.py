"""Which teacher a user means; found and checked before anything is loaded. Imports no torch where there is no data yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.core.errors import ConfigError

if TYPE_CHECKING:
    from graftwork.workflows.rank.sources import RankSource

__all__ = ["check_teacher"]

_FILES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json", ".npy", ".npz", ".safetensors")
"""No backbone has a name with such an end."""


def check_teacher(name: str, kinds: Sequence[str] | None = None) -> RankSource | None:
    """Return the source that a user means by a teacher; None for a file.

    Args:
        name: A name as in ``graftwork backbones``, a folder of a model or run, or a file.
        kinds: Kinds of the suite's inputs; None where the data is not read yet: then only whether there is such a file or folder.

    Raises:
        ConfigError: If there is no such teacher, it reads other data, or a folder holds several.
    """
    if Path(name).is_file():
        return None
    if kinds is None:
        is_path = "/" in name or Path(name).suffix.lower() in _FILES
        if not Path(name).exists() and is_path and ":" not in name:
            raise ConfigError(f"There is no file or folder {name}. A teacher is a name, a folder of a model or run, or a file.")
        return None
    if name == "all":
        raise ConfigError("A teacher is named one by one; `graftwork rank` says which ones fit the data.")
    from graftwork.workflows.rank.sources import find_sources

    found = [source for source in find_sources([name], kinds)[0] if not source.is_control]
    if len(found) != 1:
        raise ConfigError(
            f"{name} holds {len(found)} models: {', '.join(item.name for item in found)}. Name one, or each by --teacher."
        )
    return found[0]
