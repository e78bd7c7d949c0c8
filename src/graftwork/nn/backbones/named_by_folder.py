"""Which backbones a folder may name.

A user may name anything: a package, a model of a hub, a folder. What a *folder* names (a run, a model, a delta) may be somebody
else's choice. Such backbones are built from installed packages and from the hub's cache on this machine; no address is asked for them,
and no folder elsewhere is read, unless the user names it as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graftwork.core.errors import ConfigError
from graftwork.nn.backbones.catalog import split_names
from graftwork.nn.backbones.reach import folder_of

__all__ = ["check_named_by_folder", "is_given"]


def is_given(names: str, given: str | Iterable[str]) -> bool:
    """Return whether the user has given all of ``names`` (separated by commas) as well."""
    return set(split_names(names)) <= _known(given)


def check_named_by_folder(names: str, folder: str | Path, *, given: str | Iterable[str] = (), remedy: str) -> None:
    """Check the backbones that a folder names: none of them is another folder, unless the user has given it as well.

    Args:
        names: Names, separated by commas.
        folder: What names them; a backbone inside of it may be read.
        given: Names that the user has given.
        remedy: What to do, a sentence; the name is filled in for ``{name}``.

    Raises:
        ConfigError: Naming the first one that is refused.
    """
    known = _known(given)
    for name in split_names(names):
        place = folder_of(name)
        if place is None or name in known:
            continue
        if not place.resolve().is_relative_to(Path(folder).resolve()):
            raise ConfigError(
                f"{folder} names the backbone {name!r}, a folder elsewhere. What a folder names may be somebody else's choice, so it "
                f"is not read unasked. {remedy.format(name=name)}"
            )


def _known(given: str | Iterable[str]) -> set[str]:
    return {name for text in ([given] if isinstance(given, str) else given) for name in split_names(text)}
