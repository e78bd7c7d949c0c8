"""Encoded rows of several models as one batch: texts of different lengths, and rows to try a backbone with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.training.tuned_folder import TunedFolder

__all__ = ["RAGGED", "Arrays", "example_inputs", "joined_inputs"]

Arrays = Mapping[str, NDArray[Any]]
RAGGED = ("token_ids", "attention_mask")
"""Arrays ``[N, L]`` of texts in the tokens of a pretrained backbone; rows may be padded to any ``L``."""


def example_inputs(found: TunedFolder) -> dict[str, Tensor]:
    """Return two rows of nothing in particular that differ."""
    random = torch.Generator().manual_seed(0)
    vocabulary = int(found.spec.sizes.get("vocabulary_size", 2))
    made: dict[str, Tensor] = {}
    for name, facts in found.spec.own(found.config["inputs"]).items():
        shape, kind = (2, *facts["shape"]), np.dtype(facts["dtype"])
        if name == "attention_mask":
            made[name] = torch.ones(shape, dtype=torch.int64)
            # Libraries leave a mask out that hides nothing, and blocks must be seen to take one.
            made[name][..., -1:] = 0
        elif kind.kind in "iu":
            most = 256 if kind == np.uint8 else max(vocabulary, 2)
            drawn = torch.randint(0, most, shape, generator=random)
            made[name] = torch.from_numpy(drawn.numpy().astype(kind))
        else:
            made[name] = torch.from_numpy(torch.randn(shape, generator=random).numpy().astype(kind))
    return made


def joined_inputs(parts: Sequence[Arrays], pads: Sequence[int]) -> dict[str, Tensor]:
    """Return the inputs of all parts as one batch; texts are as long as the longest one of the batch."""
    if RAGGED[1] in parts[0]:
        parts = _same_length(parts, pads)
    return {name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]}


def _same_length(parts: Sequence[Arrays], pads: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
    # Encoders pad to the length that a model was trained with; what no row of the batch has is left out.
    lengths = [max(1, int(np.flatnonzero(part[RAGGED[1]].any(axis=0)).max(initial=0)) + 1) for part in parts]
    longest, made = max(lengths), []
    for part, length, pad in zip(parts, lengths, pads, strict=True):
        own: dict[str, NDArray[Any]] = dict(part)
        for name in (name for name in RAGGED if name in part):
            fill = pad if name == RAGGED[0] else 0
            own[name] = np.pad(part[name][:, :length], ((0, 0), (0, longest - length)), constant_values=fill)
        made.append(own)
    return made
