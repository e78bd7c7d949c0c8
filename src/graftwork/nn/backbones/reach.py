"""What the name of a backbone reaches for: an installed package, a folder, or a model of a hub, in the cache or not."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graftwork.core.optional import has, require

__all__ = ["folder_of", "is_cached", "offline_hub", "timm_is_cached"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_HF_FILES = ("config.json", "tokenizer.json", ("model.safetensors", "model.safetensors.index.json"))


def folder_of(name: str) -> Path | None:
    """Return the folder that a name stands for; None if it stands for a package or a model of a hub.

    Example:
        >>> folder_of("hf:/models/mine"), folder_of("minilm"), folder_of("hf:../mine")
        (PosixPath('/models/mine'), None, PosixPath('../mine'))
    """
    prefix, _, place = name.partition(":")
    if prefix == "ttm" or (prefix == "hf" and (os.path.exists(place) or not _HUB_NAME.fullmatch(place))):
        return Path(place)
    return None


@contextlib.contextmanager
def offline_hub() -> Iterator[None]:
    """Let libraries take models of the Hugging Face hub from the cache of this machine alone; nothing is asked meanwhile."""
    if not has("huggingface_hub"):
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_cached(name: str) -> bool:
    """Return whether a backbone can be built without the network: it is no model of a hub, or lies in the cache."""
    prefix, _, place = name.partition(":")
    if prefix == "hf" and folder_of(name) is None:
        return has("huggingface_hub") and all(_in_hub_cache(place, file) for file in _HF_FILES)
    if prefix == "timm":
        base, _, digits = place.rpartition("@")
        return timm_is_cached(base if base and digits.isdigit() else place)
    return True


def timm_is_cached(name: str) -> bool:
    """Return whether the weights of a timm model lie in the caches of this machine."""
    if not has("timm"):
        return False
    timm = require("timm", extra="vision", purpose=f'The backbone "timm:{name}"')

    if not timm.is_model(name):
        return True  # said where it is built, without asking anybody
    found: Any = timm.get_pretrained_cfg(name)
    if found is None or found.file:
        return False
    if found.hf_hub_id and has("huggingface_hub"):
        return _in_hub_cache(
            found.hf_hub_id, (found.hf_hub_filename or "model.safetensors", "model.safetensors", "pytorch_model.bin")
        )
    if not found.url:
        return False
    import torch

    return os.path.isfile(os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(found.url)))


def _in_hub_cache(model: str, files: str | tuple[str, ...]) -> bool:
    """Return whether one of the files lies in the cache."""
    from huggingface_hub import try_to_load_from_cache

    names = (files,) if isinstance(files, str) else files
    try:
        return any(isinstance(try_to_load_from_cache(model, file), str) for file in names)
    except ValueError:  # no name of a model at all
        return False
