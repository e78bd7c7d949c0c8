"""Which files of a folder are the model: one ``model.safetensors``, or the shards that an index names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork.core.errors import FileFormatError
from graftwork.core.files import read_json

__all__ = ["ADAPTER_NAMES", "INDEX_NAME", "MODEL_NAME", "model_files", "said_of_pickles"]

MODEL_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_NAMES = ("adapter_config.json", "adapter_model.safetensors")
"""Configuration and weights of an adapter as peft writes them: a change of a model, and no model."""
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_REMEDY = "Give a .safetensors file, or a folder with model.safetensors or all shards of its index."


def model_files(folder: Path) -> tuple[list[Path], Mapping[str, str]]:
    """Return the files of the model in a folder, and in which of them each tensor is if an index says so.

    As in transformers, ``model.safetensors`` counts before an index. Without either, the folder must hold one ``.safetensors``
    file, or one whole set of shards ``NAME-00001-of-00003.safetensors``; optimizer states and other models beside it would be
    taken for weights.

    Args:
        folder: An existing folder.

    Raises:
        FileFormatError: If the index is damaged or names files outside of the folder, shards are missing, or the choice is not
            clear.
    """
    if (folder / MODEL_NAME).is_file():
        return [folder / MODEL_NAME], {}
    if (folder / INDEX_NAME).exists():
        listed = _read_index(folder / INDEX_NAME)
        return _existing(folder, sorted(set(listed.values()))), listed
    adapter = [name for name in ADAPTER_NAMES if (folder / name).exists()]
    if adapter:
        raise FileFormatError(
            f"{folder} holds an adapter ({adapter[-1]}), not a model: low-rank factors are no weights. Give a whole model here; "
            "graftwork merge takes adapters among --models, with the model that they belong to as --base."
        )
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    sets = {(match["stem"], match["count"]) for name in found if (match := _SHARD.fullmatch(name))}
    # A single file whose name says that it is one of several is no whole model.
    if sets or len(found) > 1:
        whole = [name for name in found if _SHARD.fullmatch(name)]
        if len(sets) != 1 or len(whole) < len(found):
            raise FileFormatError(
                f"{folder} holds {len(found)} safetensors files, none called {MODEL_NAME}, and no index: {', '.join(found[:5])}. "
                "Name the file that is the model."
            )
        stem, count = sets.pop()
        # min: an absurd count in a name must not make a list that fills memory.
        found = [f"{stem}-{number:0{len(count)}d}-of-{count}.safetensors" for number in range(1, min(int(count), 10_000) + 1)]
    return _existing(folder, found), {}


def said_of_pickles(folder: Path) -> str:
    """Return what to do where the weights of a folder are pickled, as a sentence after a blank; empty if none are."""
    found = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if not found:
        return ""
    return (
        f" {found[0]} is pickled and was not opened, since that runs code: load it where you trust it, and save it with "
        "safe_serialization=True, which transformers, peft and timm know."
    )


def _existing(folder: Path, names: list[str]) -> list[Path]:
    # Not Path.exists, which raises for names that no file system takes.
    missing = [name for name in names if not os.path.exists(folder / name)]
    if missing or not names:
        what = f"missing {', '.join(name[:80] for name in missing[:5])}" if missing else "no *.safetensors file"
        raise FileFormatError(f"{folder} holds no complete safetensors model: {what}. {_REMEDY}{said_of_pickles(folder)}")
    return [folder / name for name in names]


def _read_index(path: Path) -> dict[str, str]:
    index = read_json(path)
    listed: Any = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        what = f"its weight_map is {_short(listed)}" if isinstance(index, dict) else f"it holds {_short(index)}"
        raise FileFormatError(
            f"{path} cannot be used: {what}; an index is an object whose weight_map says in which shard each tensor is. "
            "Download or save the model again."
        )
    for name, shard in listed.items():
        # A backslash separates folders on Windows only; `Path.name` would keep it elsewhere.
        if not isinstance(shard, str) or shard != Path(shard).name or "\\" in shard or not shard.endswith(".safetensors"):
            raise FileFormatError(
                f"{path} cannot be used: it says that {name!r} is in {_short(shard)}, which is no .safetensors file beside "
                "the index. Files outside of the folder are not read."
            )
    return listed


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
