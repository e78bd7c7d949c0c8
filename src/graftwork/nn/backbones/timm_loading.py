"""timm's models by name, with their pretrained weights."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

from torch import nn

from graftwork.core.errors import ConfigError
from graftwork.core.optional import require
from graftwork.nn.backbones.reach import offline_hub, timm_is_cached
from graftwork.nn.backbones.timm_blocks import block_class
from graftwork.nn.backbones.timm_bridge import TimmBackbone

__all__ = ["load_timm"]


def load_timm(
    name: str,
    *,
    size: int | None = None,
    pretrained: bool = True,
    layout: Literal["vector", "map"] = "vector",
    local_only: bool = False,
) -> TimmBackbone:
    """Return a timm model by its timm name, with its pretrained weights; vision transformers and Swins as chains of blocks.

    Args:
        name: Name as in ``timm.list_models()``, for example ``"resnet18"``.
        size: Working resolution; by default the one of pretraining.
        pretrained: Whether to load the weights, from the cache or, if they are not there, the network.
        layout: See :class:`~graftwork.nn.backbones.timm_bridge.TimmBackbone`.
        local_only: Never ask the network.

    Raises:
        ConfigError: If timm has no such model, or its weights are neither cached nor within reach.
        MissingDependencyError: If timm is not installed.
    """
    timm = require("timm", extra="vision", purpose=f'The backbone "timm:{name}"')
    if not timm.is_model(name):
        import difflib

        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise ConfigError(
            f"timm has no model {name!r}.{f' Nearest: {chr(44).join(nearest)}.' if nearest else ''} All: timm.list_models()."
        )
    # What is cached is loaded without asking whether there is something newer.
    is_here = pretrained and timm_is_cached(name)
    if pretrained and local_only and not is_here:
        raise ConfigError(
            f"The pretrained weights of timm's {name!r} are not in the cache of this machine, and nothing is downloaded because a folder "
            f"names it. If you want it, fill the cache first: graftwork backbones timm:{name}"
        )
    try:
        with offline_hub() if is_here else contextlib.nullcontext():
            model = _create(timm, name, size, pretrained)
    except Exception as error:
        if not pretrained:
            raise
        raise ConfigError(
            f"The pretrained weights of timm's {name!r} could not be loaded ({type(error).__name__}: {str(error)[:200]}). "
            "With network access run it once to fill the cache of huggingface_hub; without it use a backbone that comes as "
            "a pip package (`graftwork backbones` lists them)."
        ) from error
    # Mean, deviation and input size of the pretrained weights.
    data = timm.data.resolve_data_config({}, model=model)
    kind = block_class(model) or TimmBackbone
    return kind(model, size=size or int(data["input_size"][-1]), mean=data["mean"], std=data["std"], layout=layout)


def _create(timm: Any, name: str, size: int | None, pretrained: bool) -> nn.Module:
    if size is not None:
        # Models with position embeddings must be told their size, and timm resamples the embeddings; others do not know the word.
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=size)
        except TypeError:
            pass
    return timm.create_model(name, pretrained=pretrained, num_classes=0)
