"""The file of a delta: one safetensors file, with its description as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from graftwork.core.errors import ComponentError, ConfigError, FileFormatError
from graftwork.core.files import write_bytes
from graftwork.core.tensor_header import with_sorted_texts
from graftwork.interfaces.delta import Delta

__all__ = ["FORMAT", "DeltaFile", "read_delta_file", "write_delta_file"]

FORMAT = "graftwork-delta-1"
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaFile:
    """What stands in the file."""

    parts: Mapping[str, Any]
    """Differences of weights: kind, shape and factor by tensor."""
    grafts: tuple[Mapping[str, Any], ...] = ()
    """Modules that are put into the base: place, component and settings, innermost first; empty in files of weights alone."""
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """``<tensor>:<part>`` of weights, ``<number>/<name>`` of grafts."""
    base_fingerprint: str = ""
    base_prints: Mapping[str, str] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, delta: Delta, parts: Mapping[str, Any], tensors: Mapping[str, Tensor], grafts: tuple[Mapping[str, Any], ...] = ()
    ) -> Self:
        """Return the file of a delta, with its facts about the base."""
        return cls(
            parts=parts,
            grafts=grafts,
            tensors=tensors,
            base_fingerprint=delta.base_fingerprint,
            base_prints=delta.base_prints,
            lineage=delta.lineage,
        )


def write_delta_file(path: str | Path, file: DeltaFile) -> None:
    """Write a delta, atomically.

    Raises:
        StorageError: If the file cannot be written.
    """
    # Copies: safetensors refuses tensors that share memory.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in file.tensors.items()}
    facts = {
        "format": FORMAT,
        "base_fingerprint": file.base_fingerprint,
        "base_tensors": json.dumps(dict(file.base_prints)),
        "parts": json.dumps(dict(file.parts)),
        "lineage": json.dumps(dict(file.lineage)),
    }
    if file.grafts:
        facts["grafts"] = json.dumps([dict(graft) for graft in file.grafts])
    write_bytes(path, with_sorted_texts(save(stored, metadata=facts)))


def read_delta_file(path: str | Path, make: Callable[[DeltaFile], Made]) -> Made:
    """Read a delta, and return what ``make`` makes of it.

    Args:
        path: The file.
        make: Called once; what it finds damaged is reported as damage of the file.

    Raises:
        FileFormatError: If the file is damaged, or no delta.
        ComponentError: If it names a component of a package that is not allowed.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            facts = opened.metadata() or {}
            if facts.get("format") != FORMAT:
                raise FileFormatError(
                    f"{path} is not a delta (format {facts.get('format')!r}, expected {FORMAT!r}). Give a file that a delta was "
                    "saved to."
                )
            file = DeltaFile(
                parts=json.loads(facts["parts"]),
                grafts=tuple(json.loads(facts.get("grafts", "[]"))),
                tensors={name: opened.get_tensor(name) for name in opened.keys()},  # noqa: SIM118 # no mapping
                base_fingerprint=facts["base_fingerprint"],
                # Files of older versions have none.
                base_prints=json.loads(facts.get("base_tensors", "{}")),
                lineage=json.loads(facts["lineage"]),
            )
            return make(file)
    except (FileFormatError, ComponentError):
        raise  # these say what is wrong already
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise FileFormatError(f"{path} is a damaged delta: {error}. Restore it from a copy, or tune again.") from error
