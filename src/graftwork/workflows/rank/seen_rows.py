"""What scores read of one source: its features, what it says of its own classes, and the narrow form that replicates are taken of.

All are arrays of all rows. Those that are large are kept in the store beside the features and mapped from there, so that scores of
any number of rows take bounded memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graftwork.core.errors import DataError
from graftwork.evaluation.score_stability import main_directions, narrowed
from graftwork.interfaces.backbone import Backbone, FeatureShape
from graftwork.methods.selection.nce import NegativeConditionalEntropy
from graftwork.nn.backbones.source_heads import SourceHead
from graftwork.training.feature_store import cached_features
from graftwork.workflows.rank.loading import LoadedSource

__all__ = ["IN_MEMORY", "class_answers", "narrow_features", "telling_head"]

Array = NDArray[Any]
IN_MEMORY = 64e6
"""Bytes of what is derived from features up to which it is computed in memory and stored nowhere."""
_BATCH = 1024


class _LinearMap(Backbone):
    """Features times a matrix; with a classifier's bias and a softmax on top, its class probabilities."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Array, bias: Array | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", torch.from_numpy(np.array(weight, dtype=np.float32)))
        self.register_buffer("bias", None if bias is None else torch.from_numpy(np.array(bias, dtype=np.float32)))
        self.feature_shape = FeatureShape("vector", len(weight))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return ``[B, rows of the matrix]``."""
        found = inputs["features"] @ self.weight.T
        return found if self.bias is None else (found + self.bias).softmax(dim=1)


def narrow_features(features: Array, cache: Path) -> Array:
    """Return features for replicates (:func:`graftwork.evaluation.score_stability.narrowed`), mapped from the store if they are large.

    Args:
        features: ``[N, D]``.
        cache: Folder of the store.
    """
    if features.nbytes <= IN_MEMORY:
        return narrowed(features)
    basis = main_directions(features)
    if basis is None:
        return features
    return cached_features(_LinearMap(basis.T), {"features": features}, cache, batch_size=_BATCH)


def class_answers(
    loaded: LoadedSource, features: Array, cache: Path, *, device: str, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Array, dict[str, slice]] | None:
    """Return the probabilities of a source's own classes, ``[N, Z]``, and the columns of each of its tasks; None if it has none.

    Args:
        loaded: The source.
        features: Its features of all rows.
        cache: Folder of the store.
        device: Where a model answers.
        on_progress: Called with finished rows and all rows.
    """
    if loaded.answers is not None:
        found = cached_features(loaded.answers.to(device), loaded.arrays, cache, on_progress=on_progress)
        loaded.answers.to("cpu")
        return found, dict(loaded.answers.heads)
    if loaded.head is None:
        return None
    return _head_answers(loaded.head, features, cache), {"": slice(0, len(loaded.head.weight))}


def _head_answers(head: SourceHead, features: Array, cache: Path) -> Array:
    if 4.0 * len(features) * len(head.weight) <= IN_MEMORY:
        return np.concatenate([head.probabilities(features[start : start + _BATCH]) for start in range(0, len(features), _BATCH)])
    return cached_features(_LinearMap(head.weight, head.bias), {"features": features}, cache, batch_size=_BATCH)


def telling_head(answers: Array, heads: dict[str, slice], target: Array) -> str:
    """Return which of a source's own tasks says most of a target: that with the highest NCE; the first if none can be judged.

    Args:
        answers: Probabilities of the classes of all tasks, ``[N, Z]``.
        heads: Columns of each task.
        target: Classes, int64 ``[N]``, -1 where missing.
    """
    if len(heads) == 1:
        return next(iter(heads))

    def said(columns: slice) -> float:
        try:
            return NegativeConditionalEntropy().score(answers[:, columns], target)
        except DataError:
            return float("-inf")

    return max(heads, key=lambda name: said(heads[name]))
