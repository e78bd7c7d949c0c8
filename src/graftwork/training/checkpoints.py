"""Checkpoints: a folder with one safetensors file and one JSON file that names it, whole at every moment.

The tensors are written first under a name that holds their hash; the JSON file is replaced last and is what counts. A process
killed in between leaves the older checkpoint valid.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from graftwork.core.errors import CheckpointError, FileFormatError
from graftwork.core.files import hash_bytes, hash_file, read_json, write_bytes, write_json
from graftwork.core.folders import remove_own

__all__ = ["FORMAT", "has_checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "graftwork-checkpoint-2"
INDEX = "checkpoint.json"
_MARK = "__tensor__"
_OWN_NAME = re.compile(r"tensors-[0-9a-f]{16}\.safetensors")


def has_checkpoint(folder: str | Path) -> bool:
    """Return whether ``folder`` holds a checkpoint."""
    return (Path(folder) / INDEX).is_file()


def save_checkpoint(folder: str | Path, state: Mapping[str, Any]) -> None:
    """Write nested mappings and lists of tensors and JSON values, atomically.

    Args:
        folder: Made if absent; an older checkpoint in it is replaced.
        state: Keys are strings; tensors may stand anywhere.

    Raises:
        StorageError: If the folder cannot be written or the disk is full; the older checkpoint stays whole.
        TypeError: If a value is neither tensor nor JSON.
    """
    folder = Path(folder)
    tensors: dict[str, Tensor] = {}
    skeleton = _take_tensors(state, tensors, "")
    content = safetensors.torch.save(tensors)
    digest = hash_bytes(content)
    name = f"tensors-{digest[:16]}.safetensors"
    write_bytes(folder / name, content)
    index = {"format": FORMAT, "tensors": name, "sha256": digest, "state": skeleton, "state_sha256": _hash_of_state(skeleton)}
    write_json(folder / INDEX, index)
    # Only now: until the index was replaced, it named one of these.
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name and _OWN_NAME.fullmatch(old.name):  # other files in the folder are not ours
            remove_own(folder, old.name)


def load_checkpoint(folder: str | Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; every byte is checked against its hash.

    Raises:
        CheckpointError: If there is none, or a file of it is missing, damaged or of another format.
    """
    folder = Path(folder)
    if not has_checkpoint(folder):
        raise CheckpointError(f"There is no checkpoint in {folder} ({INDEX} is missing). Start the run again without --resume.")
    again = f"Remove {folder} and run again; finished runs beside it are kept."
    try:
        index = read_json(folder / INDEX)
        if index["format"] != FORMAT:
            raise CheckpointError(
                f"The checkpoint in {folder} has format {index['format']!r}; this version reads {FORMAT!r}. {again}"
            )
        # The name alone: a manipulated index must not lead out of the folder.
        path = folder / Path(index["tensors"]).name
        digest = hash_file(path)
        if digest != index["sha256"]:
            raise CheckpointError(
                f"{path} is damaged: its SHA-256 is {digest[:16]}..., expected {index['sha256'][:16]}.... {again}"
            )
        # Checkpoints of before have no hash of the values.
        if index.get("state_sha256", found := _hash_of_state(index["state"])) != found:
            raise CheckpointError(f"{folder / INDEX} is damaged: its values do not have the hash that it names. {again}")
        return _put_tensors(index["state"], safetensors.torch.load_file(path))
    except (FileFormatError, KeyError, TypeError, AttributeError, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"The checkpoint in {folder} cannot be read: {error}. {again}") from error


def _hash_of_state(skeleton: Any) -> str:
    # As the values are read back: JSON has no tuples and no keys but texts.
    return hash_bytes(json.dumps(skeleton, sort_keys=True).encode())


def _take_tensors(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if isinstance(value, Tensor):
        name = path or "value"
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {_MARK: name}
    if isinstance(value, Mapping):
        # A key equal to the mark would be read back as a tensor.
        bad = [key for key in value if not isinstance(key, str) or key == _MARK]
        if bad:
            raise TypeError(f"Keys of a checkpoint must be strings; got {bad[0]!r} under {path or 'the root'}.")
        return {key: _take_tensors(item, tensors, f"{path}/{key}" if path else key) for key, item in value.items()}
    # JSON has no tuples: they come back as lists.
    if isinstance(value, list | tuple):
        return [_take_tensors(item, tensors, f"{path}/{index}" if path else str(index)) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"A checkpoint holds tensors and JSON values; got {type(value).__name__} under {path or 'the root'}.")


def _put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_MARK}:
            return torch.clone(tensors[value[_MARK]])
        return {key: _put_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
