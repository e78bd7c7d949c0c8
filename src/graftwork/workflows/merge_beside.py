"""What stands beside the weights of a model and goes with those of its merge: configuration and tokenizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json, write_bytes, write_json
from graftwork.workflows.merge_folder import OTHER_NAMES, TOKENIZER_NAMES, own_file, write_copies

__all__ = ["Content", "SideFiles", "note_tokenizers", "side_files"]

Content = Path | bytes
"""A file that is copied, or what it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideFiles:
    """Files beside the weights of a model."""

    tokenizer: Mapping[str, Content] = field(default_factory=dict)
    """By name."""
    others: Mapping[str, Content] = field(default_factory=dict)
    """By name, without the configuration."""
    config: Mapping[str, Any] | None = None
    """The configuration; None if there is none."""
    notes: tuple[str, ...] = ()
    """What is missing."""

    def with_other(self, name: str, path: Path) -> SideFiles:
        """Return these files and another one, a copy of ``path``."""
        return dataclasses.replace(self, others={**self.others, name: path})

    def read(self, name: str) -> bytes | None:
        """Return what a file of the tokenizer or of the others holds; None if it is not there.

        Raises:
            FileFormatError: If it cannot be read.
        """
        content = self.tokenizer.get(name, self.others.get(name))
        if not isinstance(content, Path):
            return content
        try:
            return content.read_bytes()
        except OSError as error:
            raise FileFormatError(
                f"{content} cannot be read: {error.strerror or error}. Download or save the model again."
            ) from error

    def json(self, name: str) -> Any:
        """Return what a file of JSON holds; None if it is not there.

        Raises:
            FileFormatError: If it is no JSON.
        """
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{name} of a model is no JSON: {error}. Download or save the model again.") from error

    @property
    def names(self) -> set[str]:
        """Names of the files that :meth:`write` writes."""
        return {*self.tokenizer, *self.others} | (set() if self.config is None else {"config.json"})

    def write(self, out: Path) -> None:
        """Write all files, each whole or absent.

        Raises:
            StorageError: If they cannot be written.
        """
        contents = {**self.others, **self.tokenizer}
        write_copies({name: content for name, content in contents.items() if isinstance(content, Path)}, out)
        for name, content in contents.items():
            if isinstance(content, bytes):
                write_bytes(out / name, content)
        if self.config is not None:
            write_json(out / "config.json", self.config)


def side_files(home: Path) -> SideFiles:
    """Look at what stands beside the weights of a model; only the configuration is read.

    Args:
        home: Folder of the model; beside a file of weights nothing counts.

    Raises:
        ConfigError: If a file is a link that leaves the model's folder.
        FileFormatError: If the configuration is no JSON.
    """
    if not home.is_dir():
        return SideFiles(notes=(f"{home} is a file, so there is no configuration to go with the weights.",))
    config, notes = None, list[str]()
    if (home / "config.json").is_file():
        content = read_json(own_file(home / "config.json", home))
        config = content if isinstance(content, dict) else None
    else:
        notes.append(f"{home} has no config.json, so there is none to go with the weights.")
    return SideFiles(
        tokenizer=_matches(home, TOKENIZER_NAMES), others=_matches(home, OTHER_NAMES), config=config, notes=tuple(notes)
    )


def _matches(home: Path, patterns: Iterable[str]) -> dict[str, Content]:
    found = sorted({match for pattern in patterns for match in home.glob(pattern) if match.is_file()})
    return {item.name: own_file(item, home) for item in found}


def note_tokenizers(contents: Mapping[str, bytes]) -> list[str]:
    """Return a note if models have different tokenizers.

    Args:
        contents: ``tokenizer.json`` of each model that has one.
    """
    if len(set(contents.values())) <= 1:
        return []
    return [f"the tokenizers of {', '.join(contents)} are not the same; the result has that of the base."]
